//! Every RPC against every kind of bad input: all violations at once, each naming its field and its limit.

use proto::{
    common::v1::Money,
    user::v1::{
        BestAvailable, BuyTicketRequest, CreateUserRequest, GetOrderRequest, GetUserRequest, ListOrdersRequest,
        SignInRequest, TopUpRequest, WatchOrderRequest, buy_ticket_request::Selection,
    },
};
use tonic::Code;

use crate::{
    fake::Method,
    fixture::{Fixture, chosen, euro, fields, id, new_user, reason},
};

#[tokio::test]
async fn accounts_refuse_what_breaks_a_limit() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let cases: Vec<(&str, CreateUserRequest, &[&str])> = vec![
        (
            "nothing at all",
            CreateUserRequest::default(),
            &["request_id", "email", "display_name", "password"],
        ),
        (
            "no UUID",
            CreateUserRequest {
                request_id: "{}".into(),
                ..new_user()
            },
            &["request_id"],
        ),
        (
            "no at",
            CreateUserRequest {
                email: "ada".into(),
                ..new_user()
            },
            &["email"],
        ),
        (
            "two ats",
            CreateUserRequest {
                email: "a@b@c".into(),
                ..new_user()
            },
            &["email"],
        ),
        (
            "a long address",
            CreateUserRequest {
                email: format!("{}@b", "a".repeat(300)),
                ..new_user()
            },
            &["email"],
        ),
        (
            "a forged line",
            CreateUserRequest {
                display_name: "a\r\nb".into(),
                ..new_user()
            },
            &["display_name"],
        ),
        (
            "a long name",
            CreateUserRequest {
                display_name: "a".repeat(101),
                ..new_user()
            },
            &["display_name"],
        ),
        (
            "a short password",
            CreateUserRequest {
                password: "1234567".into(),
                ..new_user()
            },
            &["password"],
        ),
        (
            "a long password",
            CreateUserRequest {
                password: "x".repeat(129),
                ..new_user()
            },
            &["password"],
        ),
        (
            "no currency",
            CreateUserRequest {
                currency_code: "euro".into(),
                ..new_user()
            },
            &["currency_code"],
        ),
    ];
    for (name, request, expected) in cases {
        let password = request.password.clone();
        let status = client.create_user(request).await.expect_err(name);
        assert_eq!(fields(&status), expected, "{name}");
        assert!(
            password.is_empty() || !format!("{status:?}").contains(&password),
            "{name} repeats the password"
        );
    }
    let status = client
        .sign_in(SignInRequest::default())
        .await
        .expect_err("nothing at all");
    assert_eq!(fields(&status), ["email"]);
    let long = SignInRequest {
        email: "a@b".into(),
        password: "x".repeat(200_000),
    };
    assert_eq!(
        fields(&client.sign_in(long).await.expect_err("far too much to hash")),
        ["password"]
    );
    let status = client
        .get_user(GetUserRequest {
            user_id: "1; DROP TABLE users".into(),
        })
        .await
        .expect_err("no UUID");
    assert_eq!(fields(&status), ["user_id"]);
    fixture.stop().await;
}

/// It answered with an error of the codec that named no reason. A name of a megabyte is more than a message may have: it is not
/// read, and the answer says by how much; one that fits is named by its field.
#[tokio::test]
async fn a_name_of_a_megabyte_is_refused_with_what_to_do() {
    let fixture = Fixture::start().await;
    let named = |bytes| CreateUserRequest {
        display_name: "x".repeat(bytes),
        ..new_user()
    };
    let status = fixture.client.clone().create_user(named(1 << 20)).await;
    let status = status.expect_err("a megabyte");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    let said = "this server takes at most 262144: shorten its fields";
    assert!(status.message().contains(said), "{}", status.message());
    let status = fixture.client.clone().create_user(named(200_000)).await;
    assert_eq!(fields(&status.expect_err("a name")), ["display_name"]);
    fixture.stop().await;
}

#[tokio::test]
async fn top_ups_refuse_amounts_that_make_no_sense() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(5).await;
    for minor_units in [i64::MIN, -1, 0, 100_000_001, i64::MAX] {
        let request = TopUpRequest {
            request_id: id(),
            user_id: user.id.clone(),
            amount: euro(minor_units),
        };
        let status = client.top_up(request).await.expect_err("no sense");
        assert_eq!(fields(&status), ["amount.minor_units"], "{minor_units}");
    }
    for currency_code in ["", "eur", "EURO", "€"] {
        let amount = Some(Money {
            currency_code: currency_code.into(),
            minor_units: 1,
        });
        let request = TopUpRequest {
            request_id: id(),
            user_id: user.id.clone(),
            amount,
        };
        assert_eq!(
            fields(&client.top_up(request).await.expect_err("no code")),
            ["amount.currency_code"]
        );
    }
    let status = client
        .top_up(TopUpRequest::default())
        .await
        .expect_err("nothing at all");
    assert_eq!(
        fields(&status),
        ["request_id", "user_id", "amount.currency_code", "amount.minor_units"]
    );
    assert_eq!(fixture.balance(&user).await, 5);
    fixture.stop().await;
}

#[tokio::test]
async fn purchases_refuse_what_breaks_a_limit_and_ask_nobody() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(5).await;
    let eleven: Vec<String> = (1..=11).map(|seat| format!("A/1/{seat}")).collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    let best = |quantity, section: &str| BuyTicketRequest {
        selection: Some(Selection::BestAvailable(BestAvailable {
            quantity,
            section: section.into(),
        })),
        ..chosen(&user.id, &["A/1/1"])
    };
    let cases: Vec<(&str, BuyTicketRequest, &[&str])> = vec![
        (
            "nothing at all",
            BuyTicketRequest::default(),
            &["request_id", "user_id", "event_id", "selection"],
        ),
        (
            "no event",
            BuyTicketRequest {
                event_id: "x".into(),
                ..best(1, "")
            },
            &["event_id"],
        ),
        ("no seats", chosen(&user.id, &[]), &["seats.seat_ids"]),
        ("11 seats", chosen(&user.id, &eleven), &["seats.seat_ids"]),
        (
            "a seat twice",
            chosen(&user.id, &["A/1/1", "A/1/1"]),
            &["seats.seat_ids"],
        ),
        (
            "a seat with a comma",
            chosen(&user.id, &["A/1/1", "A/1,2"]),
            &["seats.seat_ids[1]"],
        ),
        ("quantity 0", best(0, ""), &["best_available.quantity"]),
        ("quantity 11", best(11, ""), &["best_available.quantity"]),
        ("quantity u32::MAX", best(u32::MAX, ""), &["best_available.quantity"]),
        ("no section", best(1, "A B"), &["best_available.section"]),
    ];
    for (name, request, expected) in cases {
        let status = client.buy_ticket(request).await.expect_err(name);
        assert_eq!(fields(&status), expected, "{name}");
    }
    let status = client.buy_ticket(chosen(&id(), &["A/1/1"])).await.expect_err("nobody");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "USER_UNKNOWN")
    );
    assert_eq!(fixture.tickets.called(Method::Hold), 0);
    fixture.stop().await;
}

#[tokio::test]
async fn orders_are_asked_for_by_ids_and_pages() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(0).await;
    let status = client
        .get_order(GetOrderRequest { order_id: "x".into() })
        .await
        .expect_err("no UUID");
    assert_eq!(fields(&status), ["order_id"]);
    let status = client
        .get_order(GetOrderRequest { order_id: id() })
        .await
        .expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "ORDER_UNKNOWN")
    );
    let status = client
        .watch_order(WatchOrderRequest {
            order_id: String::new(),
        })
        .await
        .expect_err("no UUID");
    assert_eq!(fields(&status), ["order_id"]);
    for (page_size, page_token, expected) in [(-1, "", "page_size"), (201, "", "page_size"), (0, "1.x", "page_token")] {
        let request = ListOrdersRequest {
            user_id: user.id.clone(),
            page_size,
            page_token: page_token.into(),
        };
        assert_eq!(
            fields(&client.list_orders(request).await.expect_err("a bad page")),
            [expected]
        );
    }
    let request = ListOrdersRequest {
        user_id: id(),
        ..ListOrdersRequest::default()
    };
    let status = client.list_orders(request).await.expect_err("nobody");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "USER_UNKNOWN")
    );
    fixture.stop().await;
}
