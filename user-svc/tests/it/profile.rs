//! What becomes of an account: changes, a new password, its end.

use proto::user::v1::{
    CreateUserRequest, DeleteUserRequest, GetOrderRequest, GetUserRequest, ListOrdersRequest, UpdateProfileRequest,
    User,
};
use tonic::{Code, Status};

use crate::{
    fake::{Act, Method, PRICE},
    fixture::{Client, Fixture, PASSWORD, connect_as, fields, new_user, reason, sign_in, two_seats},
    purchases::wait_until,
};

fn change(user: &User) -> UpdateProfileRequest {
    UpdateProfileRequest {
        user_id: user.id.clone(),
        ..UpdateProfileRequest::default()
    }
}

fn delete(user: &User) -> DeleteUserRequest {
    DeleteUserRequest {
        user_id: user.id.clone(),
        password: PASSWORD.into(),
        forfeit_balance: false,
    }
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

async fn get(client: &Client, user: &User) -> Result<User, Status> {
    let request = GetUserRequest {
        user_id: user.id.clone(),
    };
    let answer = client.clone().get_user(request).await?;
    Ok(answer.into_inner().user.expect("the user"))
}

#[tokio::test]
async fn a_name_is_changed_freely_and_an_address_with_the_password() {
    let fixture = Fixture::start().await;
    let (user, mut client) = fixture.buyer_with(0).await;
    let other = fixture.user_with(0).await;
    let named = UpdateProfileRequest {
        display_name: " Grace ".into(),
        ..change(&user)
    };
    let answer = client
        .update_profile(named)
        .await
        .expect("free")
        .into_inner()
        .user
        .expect("the user");
    assert_eq!(answer.display_name, "Grace");
    let moved = |email: &str, password: &str| UpdateProfileRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        ..change(&user)
    };
    for password in ["", "battery staple"] {
        let status = client
            .update_profile(moved("grace@example.org", password))
            .await
            .expect_err("wrong");
        assert_eq!(told(&status), (Code::Unauthenticated, "CREDENTIALS_WRONG".into()));
    }
    let status = client
        .update_profile(moved(&other.email, PASSWORD))
        .await
        .expect_err("taken");
    assert_eq!(told(&status), (Code::AlreadyExists, "EMAIL_TAKEN".into()));
    client
        .update_profile(moved("Grace@example.org", PASSWORD))
        .await
        .expect("right");
    assert_eq!(get(&client, &user).await.expect("own").email, "grace@example.org");
    sign_in(&fixture.server, "grace@example.org").await;

    let status = client
        .update_profile(change(&user))
        .await
        .expect_err("nothing to change");
    assert_eq!(fields(&status), ["display_name"]);
    let bad = UpdateProfileRequest {
        user_id: "x".into(),
        display_name: "a\nb".into(),
        email: "a".into(),
        new_password: "short".into(),
        password: "x".repeat(129),
    };
    let status = client.update_profile(bad).await.expect_err("all wrong");
    assert_eq!(
        fields(&status),
        ["user_id", "display_name", "email", "new_password", "password"]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let fixture = Fixture::start().await;
    let (user, mut client) = fixture.buyer_with(0).await;
    let other = sign_in(&fixture.server, &user.email).await;
    let other = connect_as(&fixture.server, Some(&other.session_token)).await;
    get(&other, &user).await.expect("good");
    let new = UpdateProfileRequest {
        new_password: "tr0ub4dor and three".into(),
        password: PASSWORD.into(),
        ..change(&user)
    };
    client.update_profile(new.clone()).await.expect("right");
    get(&client, &user).await.expect("this one stays");
    let status = get(&other, &user).await.expect_err("this one does not");
    assert_eq!(told(&status), (Code::Unauthenticated, "SESSION_ENDED".into()));
    let status = client.update_profile(new).await.expect_err("the old password");
    assert_eq!(told(&status), (Code::Unauthenticated, "CREDENTIALS_WRONG".into()));
    fixture.stop().await;
}

#[tokio::test]
async fn a_deleted_account_leaves_its_orders_and_nothing_of_the_person() {
    let fixture = Fixture::start().await;
    let (user, mut client) = fixture.buyer_with(2 * PRICE).await;
    let order = fixture.buy(two_seats(&user)).await;
    let wrong = DeleteUserRequest {
        password: "battery staple".into(),
        ..delete(&user)
    };
    let status = client.delete_user(wrong).await.expect_err("wrong");
    assert_eq!(told(&status), (Code::Unauthenticated, "CREDENTIALS_WRONG".into()));
    client.delete_user(delete(&user)).await.expect("nothing is left");

    let status = get(&client, &user).await.expect_err("signed out");
    assert_eq!(told(&status), (Code::Unauthenticated, "SESSION_ENDED".into()));
    let status = get(&fixture.client, &user).await.expect_err("gone");
    assert_eq!(told(&status), (Code::NotFound, "USER_UNKNOWN".into()));
    let mut operator = fixture.client.clone();
    let kept = operator
        .get_order(GetOrderRequest {
            order_id: order.id.clone(),
        })
        .await;
    assert_eq!(
        kept.expect("kept").into_inner().order.expect("the order").ticket_ids,
        order.ticket_ids
    );
    let list = ListOrdersRequest {
        user_id: user.id.clone(),
        ..ListOrdersRequest::default()
    };
    assert_eq!(
        operator
            .list_orders(list)
            .await
            .expect("kept")
            .into_inner()
            .orders
            .len(),
        1
    );
    let status = operator.delete_user(delete(&user)).await.expect_err("twice");
    assert_eq!(told(&status), (Code::NotFound, "USER_UNKNOWN".into()));
    let buys = operator.buy_ticket(two_seats(&user)).await.expect_err("gone");
    assert_eq!(told(&buys), (Code::NotFound, "USER_UNKNOWN".into()));

    // The address is free, and the new account is another one.
    let request = CreateUserRequest {
        email: user.email.clone(),
        ..new_user()
    };
    let new = operator
        .create_user(request)
        .await
        .expect("free")
        .into_inner()
        .user
        .expect("the user");
    assert_ne!(new.id, user.id);
    fixture.stop().await;
}

#[tokio::test]
async fn an_account_with_money_or_an_unfinished_purchase_is_not_deleted_by_accident() {
    let fixture = Fixture::start().await;
    let (user, mut client) = fixture.buyer_with(10_000).await;
    let status = client.delete_user(delete(&user)).await.expect_err("money");
    assert_eq!(told(&status), (Code::FailedPrecondition, "WALLET_NOT_EMPTY".into()));

    fixture.tickets.next(Method::Confirm, [Act::AwaitGate]);
    let request = two_seats(&user);
    let mut buyer = client.clone();
    let buying = tokio::spawn(async move { buyer.buy_ticket(request).await });
    wait_until(|| fixture.tickets.called(Method::Confirm) == 1).await;
    let gives_up = DeleteUserRequest {
        forfeit_balance: true,
        ..delete(&user)
    };
    let status = client.delete_user(gives_up.clone()).await.expect_err("under way");
    assert_eq!(told(&status), (Code::FailedPrecondition, "ORDERS_UNFINISHED".into()));
    get(&client, &user).await.expect("nothing has changed");
    fixture.tickets.open_gate();
    buying.await.expect("no panic").expect("bought");
    client
        .delete_user(gives_up)
        .await
        .expect("it has ended, and the rest is given up");
    fixture.stop().await;
}
