//! The terms of docs/proof.md, "Bounds": bytes that a connection owns at most. `memory` counts the
//! core by them, `tests/slowloris` a whole server.

/// E: an exchange without its buffers.
pub const EXCHANGE: usize = 768;
/// P: what a plan and a query hold beside texts of the request.
pub const PLAN: usize = 256;
/// O: head and JSON of an answer.
pub const ANSWER: usize = 1024;
/// S: an image on its way, beside the image.
pub const STREAM: usize = 128;
/// G: what a request needed is given back beyond this.
pub const GIVEN_BACK: usize = 4096;
/// T: TLS between requests.
pub const TLS_IDLE: usize = 3712;
/// K: TLS while it shakes hands.
pub const TLS_SHAKING: usize = 4608;
/// TLS that has not begun, or has nothing more to say.
pub const TLS_OVER: usize = 256;
/// R: a record that is not whole, in a buffer that grew.
pub const RECORD: usize = 2 * 18_437;
/// B: one batch of sealed records.
pub const BATCH: usize = 17 * 1024;

/// Spare exchanges of a thread, and what each buffer of one keeps.
pub const SPARE_EXCHANGES: usize = 64;
/// What each of the four buffers of a spare exchange keeps.
pub const SPARE_EXCHANGE: usize = 1024;
/// Spare buffers of a thread, each for one [`BATCH`].
pub const SPARE_BUFFERS: usize = 16;

/// D: what a driver keeps for a connection, with the connection itself.
pub const DRIVER_MIO: usize = 105;
/// The same for otter-tokio: a task, and what tokio keeps for a socket.
pub const DRIVER_TOKIO: usize = 1280;
/// A: what an allocator adds to the blocks of a connection, by rounding and by their headers.
pub const ALLOCATOR: usize = 256;

/// While a request comes, of which so many bytes are there.
#[must_use]
pub const fn receiving(bytes: usize) -> usize {
    EXCHANGE + 2 * bytes
}

/// While an answer leaves. What the request needed is given back down to [`GIVEN_BACK`].
#[must_use]
pub const fn responding() -> usize {
    EXCHANGE + PLAN + GIVEN_BACK + ANSWER + STREAM
}
