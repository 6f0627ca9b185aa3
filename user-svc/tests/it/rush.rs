//! A rush for what is sold out: the ticket service is not asked again for each buyer, and every buyer has an answer that stays.

use std::time::Duration;

use futures_util::future::join_all;
use proto::user::v1::{OrderFailure, OrderState};
use tonic::Code;

use crate::{
    fake::{Act, Method},
    fixture::{Fixture, two_seats},
};

/// How many come after the first one who heard that there is none.
const CROWD: usize = 30;

#[tokio::test]
async fn who_comes_right_after_a_refusal_is_refused_without_another_call() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(100_000).await;
    // A new id each time, for the same event.
    let event_id = two_seats(&user).event_id;
    let request = || proto::user::v1::BuyTicketRequest {
        event_id: event_id.clone(),
        ..two_seats(&user)
    };
    let sold_out = Act::Refuse(Code::FailedPrecondition, "SOLD_OUT");
    fixture.tickets.next(Method::Hold, [sold_out; CROWD + 1]);
    let first = fixture.buy(request()).await;
    assert_eq!(first.failure(), OrderFailure::SoldOut, "{first:?}");

    let requests: Vec<_> = (0..CROWD).map(|_| request()).collect();
    let orders = join_all(requests.iter().cloned().map(|request| fixture.buy(request))).await;
    let asked = fixture.tickets.called(Method::Hold);
    assert!(asked < 1 + CROWD, "everybody's purchase was asked for: {asked}");
    for (request, order) in requests.into_iter().zip(&orders) {
        assert_eq!(
            (order.state(), order.failure(), order.detail.as_str()),
            (OrderState::Failed, OrderFailure::SoldOut, first.detail.as_str())
        );
        assert_eq!(fixture.order(&order.id).await, *order, "it can be looked up");
        assert_eq!(
            &fixture.buy(request).await,
            order,
            "asked again, the answer is the same"
        );
    }
    assert_eq!(fixture.balance(&user).await, 100_000);

    // Seats are there again, and soon somebody asks.
    fixture.tickets.obey(Method::Hold);
    loop {
        let order = fixture.buy(request()).await;
        if order.state() == OrderState::Succeeded {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fixture.stop().await;
}
