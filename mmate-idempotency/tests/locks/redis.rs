//! The fence in Redis.

use mmate_idempotency::fence::REDIS_SET_IF_NEWER;
use mmate_test_support::{redis_url, unique};
use redis::Script;

/// S20: also above 2⁵³, where Lua's numbers have gaps.
#[tokio::test]
async fn a_value_in_redis_is_set_by_a_higher_fence_only() {
    let client = redis::Client::open(redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (key, script) = (unique("price"), Script::new(REDIS_SET_IF_NEWER));
    let most = i64::MAX as u64;
    for (fence, value, set) in [
        (9, "a", true),
        (10, "b", true),
        (10, "c", false),
        (9, "d", false),
        (most - 1, "e", true),
        (most, "f", true),
        (most - 1, "g", false),
        (1 << 53, "h", false),
    ] {
        let answer: bool =
            script.key(&key).arg(fence).arg(value).invoke_async(&mut connection).await.unwrap();
        assert_eq!(answer, set, "{fence} {value}");
    }
    let (fence, value): (u64, String) = redis::cmd("HMGET")
        .arg(&key)
        .arg(&["fence", "value"])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!((fence, value.as_str()), (most, "f"));
    let _: () = redis::cmd("DEL").arg(&key).query_async(&mut connection).await.unwrap();
}
