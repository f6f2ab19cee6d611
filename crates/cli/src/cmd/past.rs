//! What the verbs that only look at the past share: the engine answers, or the state directory where none runs.

use alike_sync::control::{self, ClientError, PastRequest, Request};
use serde::de::DeserializeOwned;

use crate::context::Context;

/// The answer, of the engine or without one.
pub(super) fn ask<T: DeserializeOwned>(context: &Context, request: PastRequest) -> anyhow::Result<T> {
    match control::ask(&context.home, &Request::Past(request.clone())) {
        Err(ClientError::NoEngine(_)) => {
            let answer = alike_sync::past::offline(&context.config()?, &request)?;
            Ok(serde_json::from_value(answer)?)
        }
        answer => Ok(answer?),
    }
}
