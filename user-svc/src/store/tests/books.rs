//! The ledger: what a statement says, what an audit finds, and that no order of operations makes or loses money.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use service_store::{Database, Schema};
use sqlx::migrate::Migrator;

use super::*;
use crate::domain::{
    ledger::Kind,
    order::{NewRefund, RefundBy},
};

async fn a_statement_tells_every_change_newest_first_in_pages(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    let why = Failing::new(Failure::HoldExpired, "too late");
    let paid = fixture
        .store
        .debit(&fixture.held_order(600).await)
        .await
        .expect("enough");
    let refunding = fixture
        .store
        .advance(&paid, Step::Refund(why.clone()), None)
        .await
        .expect("moved");
    fixture.store.refund(&refunding, why).await.expect("refunded");
    fixture
        .store
        .debit(&fixture.held_order(0).await)
        .await
        .expect("nothing can always be paid");

    let (mut told, mut before) = (Vec::new(), None);
    loop {
        let page = fixture
            .store
            .statement(fixture.user.id, before, 3)
            .await
            .expect("a page");
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        told.extend(page);
    }
    let shape: Vec<_> = told
        .iter()
        .map(|entry| (entry.number, entry.kind, entry.amount, entry.balance_after.minor()))
        .collect();
    assert_eq!(
        shape,
        [
            (4, Kind::Debit, 0, 1_000),
            (3, Kind::Refund, 600, 1_000),
            (2, Kind::Debit, -600, 400),
            (1, Kind::TopUp, 1_000, 1_000),
        ]
    );
    assert_eq!((told[1].reference, told[2].reference), (paid.id, paid.id));
    assert!(told.is_sorted_by(|later, earlier| later.at >= earlier.at));
    let nobody = fixture.store.statement(id(), None, 3).await;
    assert!(matches!(refusal(nobody), Refusal::UserUnknown(_)));
    fixture.check_ledger().await;
}

/// A store of before the double entry: what was in the ledger is in the books, entry by entry, and balances are what they were.
async fn a_ledger_of_before_is_taken_over(store: TestStore) {
    let before = |migrations: &Migrator| {
        let older = migrations.iter().filter(|migration| migration.version < 20).cloned();
        Migrator::with_migrations(older.collect())
    };
    let schema = Schema {
        sqlite: before(&SCHEMA.sqlite),
        postgres: before(&SCHEMA.postgres),
    };
    let old = Database::open(store.location(), &schema, Arc::new(Ticking::default()))
        .await
        .expect("opened");
    let [user, order, event, request] = [id(), id(), id(), id()].map(|id| id.to_string());
    let mut write = old.begin(None).await.expect("begun");
    for statement in [
        "INSERT INTO users (id, request_id, email, display_name, password_hash, currency, balance, created_at)
         VALUES ($1, $4, 'a@example.org', 'A', 'hash', 'EUR', 1000, 1)",
        "INSERT INTO orders (id, user_id, event_id, body_hash, quantity, step, version, failure, detail, ticket_instance,
                             trace_id, trace_parent, created_at, updated_at)
         VALUES ($2, $1, $3, $5, 1, 'failed', 1, 'sold_out', '', '', '', '', 1, 1)",
        "INSERT INTO ledger (user_id, kind, reference, amount, balance_after, at)
         VALUES ($1, 'topup', $4, 1000, 1000, 1), ($1, 'debit', $2, -600, 400, 2), ($1, 'refund', $2, 600, 1000, 3)",
    ] {
        // Each takes some of the same five.
        let insert = sqlx::query(statement).bind(&user).bind(&order).bind(&event).bind(&request).bind(Vec::<u8>::new());
        insert.execute(&mut *write.tx).await.expect("inserted");
    }
    write.commit().await.expect("committed");
    old.close().await;

    let store = open(&store).await;
    let user = user.parse().expect("an id");
    assert_eq!(store.user(user).await.expect("the user").balance.minor(), 1_000);
    let told = store.statement(user, None, 9).await.expect("a statement");
    let amounts: Vec<_> = told.iter().map(|entry| (entry.number, entry.amount)).collect();
    assert_eq!(amounts, [(3, 600), (2, -600), (1, 1_000)]);
    assert_eq!(store.audit().await.expect("audited").wrong, Vec::<String>::new());
}

/// An order that was paid, up to where its tickets are void and its money is owed.
async fn repaying(store: &Store, paid: &Order) -> Order {
    let tickets = vec![id(), id()];
    let sold = store.advance(paid, Step::Succeeded(tickets.clone()), None).await;
    let new = NewRefund {
        id: id(),
        order_id: sold.expect("moved").id,
        by: RefundBy::Buyer,
    };
    let begun = recorded(store.begin_refund(&new, "").await);
    store
        .advance(&begun, Step::Repay(tickets), None)
        .await
        .expect("its own")
}

/// Two processes are asked at once, with one request and with two: one refund begins, and the other one hears of it or is told
/// that it is no longer to be had.
async fn of_two_who_ask_at_once_one_refund_begins(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    let other = open(&fixture.place).await;
    for round in 0..6 {
        let paid = fixture
            .store
            .debit(&fixture.held_order(10).await)
            .await
            .expect("enough");
        let sold = fixture.store.advance(&paid, Step::Succeeded(vec![id()]), None).await;
        let new = NewRefund {
            id: id(),
            order_id: sold.expect("moved").id,
            by: RefundBy::Buyer,
        };
        let second = NewRefund {
            id: if round % 2 == 0 { new.id } else { id() },
            ..new
        };
        let (one, two) = tokio::join!(fixture.store.begin_refund(&new, ""), other.begin_refund(&second, ""));
        let began = |answer: &Result<Recorded, StoreError>| matches!(answer, Ok(Recorded::New(_)));
        assert_eq!(
            [&one, &two].iter().filter(|answer| began(answer)).count(),
            1,
            "{one:?} {two:?}"
        );
        let loser = if began(&one) { two } else { one };
        match loser {
            Ok(Recorded::Before(order)) if round % 2 == 0 => {
                assert_eq!(order.step.name(), "revoke");
            }
            other => assert!(
                round % 2 == 1 && matches!(refusal(other), Refusal::NotRefundable { .. }),
                "told so"
            ),
        }
    }
    fixture.check_ledger().await;
}

/// What was not found out of order yet is what nobody looked for: each check finds what it is there for.
async fn an_audit_finds_what_is_wrong(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    fixture
        .store
        .debit(&fixture.held_order(600).await)
        .await
        .expect("enough");
    fixture.check_ledger().await;
    for (damage, repair) in [
        (
            "UPDATE postings SET amount = amount + 1 WHERE account LIKE 'sales:%'",
            "UPDATE postings SET amount = amount - 1 WHERE account LIKE 'sales:%'",
        ),
        (
            "UPDATE postings SET balance_after = balance_after + 1 WHERE number = 2",
            "UPDATE postings SET balance_after = balance_after - 1 WHERE number = 2",
        ),
        (
            "UPDATE postings SET number = 3 WHERE number = 2",
            "UPDATE postings SET number = 2 WHERE number = 3",
        ),
        (
            "UPDATE transfers SET kind = 'refund' WHERE kind = 'debit'",
            "UPDATE transfers SET kind = 'debit' WHERE kind = 'refund'",
        ),
        (
            "UPDATE orders SET step = 'failed', failure = 'sold_out', detail = ''",
            "UPDATE orders SET step = 'confirm', failure = NULL, detail = NULL",
        ),
        ("UPDATE orders SET step = 'debit'", "UPDATE orders SET step = 'confirm'"),
        (
            "UPDATE accounts SET currency = 'CHF' WHERE kind = 'sales'",
            "UPDATE accounts SET currency = 'EUR' WHERE kind = 'sales'",
        ),
        // Refunded, and its money is nowhere.
        (
            "UPDATE orders SET step = 'refunded', tickets = ''",
            "UPDATE orders SET step = 'confirm', tickets = NULL",
        ),
        (
            "UPDATE accounts SET owner = 'nobody' WHERE kind = 'wallet'",
            "UPDATE accounts SET owner = substr(id, 8) WHERE kind = 'wallet'",
        ),
    ] {
        execute(&fixture.store, damage).await.expect("damaged");
        let wrong = fixture.store.audit().await.expect("audited").wrong;
        assert!(!wrong.is_empty(), "found: {damage}");
        execute(&fixture.store, repair).await.expect("repaired");
        fixture.check_ledger().await;
    }
}

/// Below the rules there is the schema: no wallet below zero, no two postings of one number.
async fn the_schema_is_the_last_line(store: TestStore) {
    let fixture = Fixture::with(store, 1_000).await;
    let second = "INSERT INTO postings (transfer, account, amount, number, balance_after)
         SELECT transfer, account || '', amount, number, balance_after FROM postings WHERE number = 1";
    for statement in [
        second,
        "UPDATE postings SET balance_after = -1 WHERE number = 1",
        "UPDATE postings SET number = NULL WHERE number = 1",
        "INSERT INTO transfers (kind, reference, at) SELECT kind, reference, at FROM transfers",
    ] {
        execute(&fixture.store, statement).await.expect_err(statement);
    }
    fixture.check_ledger().await;
}

async fn execute(store: &Store, statement: &'static str) -> Result<(), sqlx::Error> {
    let mut write = store.database.begin(None).await?;
    sqlx::query(statement).execute(&mut *write.tx).await?;
    write.commit().await
}

/// Top-ups, payments, refunds and repeats of all of them, in any order and four at once over two processes: after each round the
/// books are right, and what the wallet holds is what those say who were answered.
async fn no_order_of_operations_makes_or_loses_money(store: TestStore) {
    let mut fixture = Fixture::with(store, 500).await;
    let other = open(&fixture.place).await;
    for seed in 0..6 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let new = new_user(&format!("user{seed}@example.org"));
        fixture.user = fixture.store.create_user(id(), &new, "hash").await.expect("new").user;
        let mut expected = 0;
        for _ in 0..6 {
            let mut round = JoinSet::new();
            for lane in 0..4 {
                let store = if lane % 2 == 0 {
                    fixture.store.clone()
                } else {
                    other.clone()
                };
                let (user, order) = (fixture.user.id, fixture.held_order(rng.random_range(0..300)).await);
                let (amount, kind, repeats) =
                    (rng.random_range(1..200), rng.random_range(0..4), rng.random_range(1..3));
                round.spawn(async move {
                    let request = id();
                    let mut change = 0;
                    for _ in 0..repeats {
                        match kind {
                            0 => {
                                store.top_up(request, user, euro(amount)).await.expect("topped up");
                                change = amount;
                            }
                            _ => match store.debit(&order).await {
                                Ok(paid) if paid.step == Step::Confirm => {
                                    change = -paid.held.as_ref().expect("held").total.minor();
                                    if kind == 2 {
                                        let why = Failing::new(Failure::HoldExpired, "too late");
                                        let next = Step::Refund(why.clone());
                                        let next = store.advance(&paid, next, None).await.expect("moved");
                                        store.refund(&next, why).await.expect("refunded");
                                        change = 0;
                                    }
                                    if kind == 3 {
                                        let repaying = repaying(&store, &paid).await;
                                        store.repay(&repaying).await.expect("given back");
                                        let again = store.repay(&repaying).await;
                                        assert!(matches!(again, Err(StoreError::Overtaken)), "{again:?}");
                                        change = 0;
                                    }
                                }
                                Ok(_) | Err(StoreError::Overtaken) => {}
                                Err(error) => panic!("{error}"),
                            },
                        }
                    }
                    change
                });
            }
            expected += round.join_all().await.into_iter().sum::<i64>();
            assert_eq!(fixture.balance().await, expected);
            fixture.check_ledger().await;
        }
    }
}

service_store::on_both_stores![
    a_statement_tells_every_change_newest_first_in_pages,
    a_ledger_of_before_is_taken_over,
    of_two_who_ask_at_once_one_refund_begins,
    an_audit_finds_what_is_wrong,
    the_schema_is_the_last_line,
    no_order_of_operations_makes_or_loses_money,
];
