//! A client of a plan, whatever it speaks.

use std::time::Duration;

use crate::client::Client;
use crate::native_client::NativeClient;
use crate::plan::{ClientPlan, Speaks};
use crate::thin_client::ThinClient;

/// Comes when it is its time, and speaks until all is said.
pub async fn call(client: Client, plan: ClientPlan) {
    tokio::time::sleep(Duration::from_millis(plan.start_ms)).await;
    match plan.speaks {
        Speaks::Native => NativeClient { client, ring_blocks: plan.ring_blocks }.run().await,
        Speaks::Thin => ThinClient { client }.run().await,
    }
}
