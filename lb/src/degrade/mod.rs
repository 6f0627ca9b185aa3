//! What stands in for a service: rules that name it, and what they name. When a call comes to that is in `call::fallback`.

mod bind;
mod reply;
mod rule;
mod standin;

pub use bind::InvalidDescriptors;
pub(crate) use bind::{Bindings, descriptors};
pub use rule::FallbackWhen;
pub(crate) use rule::{FallbackRule, With};
pub(crate) use standin::{Act, Fallback, handled, replied};
pub use standin::{Degraded, FallbackRequest};
