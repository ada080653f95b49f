//! The keys of TLS session tickets, which all servers on one Redis share.

use otter_protocol::id::bytes_from_hex;

use super::desk::Desk;
use super::keys::{self, hex};
use super::op::Op;
use crate::error::OperatorError;
use crate::job::Outcome;
use crate::tickets::TicketKey;

impl Desk {
    /// The keys held during a period, the oldest first; `minted` where there are none.
    pub(super) async fn ticket_keys(
        &self,
        period: u64,
        minted: &[TicketKey; 2],
    ) -> Outcome<Vec<TicketKey>> {
        let mut op = Op::write("ticket_keys", [keys::TICKET_KEYS.to_owned()])
            .arg(period.to_string())
            .arg((TicketKey::PERIOD_S * 1000).to_string());
        for key in minted {
            op = op.arg(hex(&key.secret));
        }
        let mut reply = self.link.ask(op).await?;
        if &*reply.text()? == "apart" {
            let redis_s = reply.digits()? / 1000;
            return Err(apart(period, redis_s));
        }
        let mut held = Vec::new();
        while !reply.is_empty() {
            let period = reply.digits()?;
            let secret = reply.parsed(|text| bytes_from_hex(text.as_bytes()))?;
            held.push(TicketKey { period, secret });
        }
        held.sort_unstable_by_key(|key| key.period);
        Ok(held)
    }
}

/// The clocks of this server and of Redis are too far apart.
fn apart(period: u64, redis_s: u64) -> OperatorError {
    let periods = period.abs_diff(TicketKey::period_at(redis_s));
    let hours = periods.saturating_sub(1) * TicketKey::PERIOD_S / 3600;
    let reason = format!(
        "the clock of this server differs from that of Redis by more than {hours} hours; set both \
         right"
    );
    OperatorError::Invalid { reason }
}
