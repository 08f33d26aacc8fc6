//! The table, and whose time it goes by.

use super::*;

/// S21
#[tokio::test]
async fn the_clock_is_the_databases_own() {
    let (store, _) = by_its_own_clock().await;
    let short = ClaimRequest::new(key("a"), Claimant::default(), Duration::from_millis(50));
    let Claim::Granted(grant) = store.claim(&short).await.unwrap() else { panic!() };
    let second = loop {
        let again = request("a");
        match store.claim(&again).await.unwrap() {
            Claim::Granted(second) => break Permit::new(&again, second),
            Claim::Busy { remaining } => tokio::time::sleep(remaining).await,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((second.attempt(), second.fence()), (2, grant.fence + 1));
    store.complete(&second, None).await.unwrap();
    let Claim::Duplicate(seen) = store.claim(&short).await.unwrap() else { panic!() };
    let age = SystemTime::from(seen.since).elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_make_a_new_table_at_once() {
    let table = unique("records");
    let mut all = JoinSet::new();
    for _ in 0..16 {
        let table = table.clone();
        all.spawn(async move {
            let store = PostgresStore::connect(&postgres_url()).await.unwrap();
            let store = store.table(table).unwrap();
            store.migrate().await.unwrap();
            matches!(store.claim(&request("a")).await.unwrap(), Claim::Granted(_))
        });
    }
    let granted = all.join_all().await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}

/// The columns that a reader of the records expects, and what is in them.
#[tokio::test]
async fn records_can_be_audited_in_plain_sql() {
    let (store, table) = by_its_own_clock().await;
    let claimant =
        Claimant { service: "inventory", subscription: "reserve", instance: "inventory-1" };
    let mut asked = ClaimRequest::new(key("order-7"), claimant, LEASE);
    (asked.correlation_id, asked.message_type) = (Some("conversation"), "OrderCreated");
    let Claim::Granted(grant) = store.claim(&asked).await.unwrap() else { panic!() };
    store.complete(&Permit::new(&asked, grant), None).await.unwrap();
    let sql = format!(
        "SELECT scope, message_id, service_name, correlation_id, message_type, status,
            abs(extract(epoch FROM now() - processed_at)) < 60
        FROM {table}"
    );
    let row: (String, String, String, String, String, String, bool) =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str(), row.2.as_str()), ("scope", "order-7", "inventory"));
    assert_eq!((row.3.as_str(), row.4.as_str()), ("conversation", "OrderCreated"));
    assert_eq!((row.5.as_str(), row.6), ("done", true));
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_and_left_as_it_is() {
    let (_, good) = by_its_own_clock().await;
    let cases = [
        ("DROP COLUMN reply", "there is no column \"reply\""),
        (
            "ALTER COLUMN fence TYPE integer",
            "the column \"fence\" bigint NOT NULL is \"fence\" integer",
        ),
        (
            "ADD COLUMN tenant text NOT NULL",
            "it requires columns that are unknown here: [\"tenant\"]",
        ),
        ("ALTER COLUMN message_id TYPE text COLLATE blind", "byte by byte (\"message_id\")"),
    ];
    run("CREATE COLLATION IF NOT EXISTS blind \
         (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        .to_owned())
    .await;
    for (change, complaint) in cases {
        let table = unique("records");
        run(format!("CREATE TABLE {table} (LIKE {good} INCLUDING ALL)")).await;
        run(format!("ALTER TABLE {table} {change}")).await;
        let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&table).unwrap();
        let error = store.migrate().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent);
        assert!(error.to_string().contains(complaint), "{error}");
        assert!(error.to_string().contains("rename it"), "{error}");
    }
    let older = unique("records");
    run(format!("CREATE TABLE {older} (message_id text PRIMARY KEY, processed_at timestamptz)"))
        .await;
    let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&older).unwrap();
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("there is no column \"scope\""), "{error}");
}

#[tokio::test]
async fn the_longest_name_is_a_table_as_any_other_and_no_name_is_a_statement() {
    let name = format!("{:x<63}", unique("records"));
    let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&name).unwrap();
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    granted(&store, "a").await;
    let indices: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_indexes WHERE tablename = $1")
        .bind(&name)
        .fetch_one(&mut connection().await)
        .await
        .unwrap();
    assert_eq!(indices, 2);
    let error = store.table("x\"; DROP TABLE y; --").unwrap_err();
    assert!(error.to_string().contains("cannot be the name of a table"), "{error}");
}

#[tokio::test]
async fn a_search_path_puts_the_table_into_another_schema() {
    let schema = unique("schema");
    run(format!("CREATE SCHEMA {schema}")).await;
    let url = format!("{}?options[search_path]={schema}", postgres_url());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    granted(&store, "a").await;
    let sql = format!("SELECT count(*) FROM {schema}.processed_messages");
    let records: i64 =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!(records, 1);
}

/// Who may not make tables can use one that is there.
#[tokio::test]
async fn a_table_that_is_there_needs_no_right_to_make_one() {
    let (_, table) = by_its_own_clock().await;
    let role = unique("role");
    run(format!(
        "CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}"
    ))
    .await;
    let url = postgres_url().replace("postgres@", &format!("{role}@"));
    let store = PostgresStore::connect(&url).await.unwrap();
    let error = store.clone().table(unique("none")).unwrap().migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
    assert!(error.to_string().contains("permission denied"), "{error}");
    let store = store.table(&table).unwrap();
    store.migrate().await.unwrap();
    let permit = granted(&store, "a").await;
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
    assert_eq!(store.purge(10).await.unwrap(), 0);
}
