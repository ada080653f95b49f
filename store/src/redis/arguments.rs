//! What a call of the function is made of.

use bytes::Bytes;
use fred::types::Value;

use super::op::Op;

/// The arguments of `FCALL`: the function's name, all keys, the time (or nothing, for Redis' own),
/// a word that no other call has, and the operations. Those of one name and number of arguments
/// that stand side by side share their header.
pub(super) fn arguments(function: &str, now: &str, word: &str, ops: &[Op]) -> Arguments {
    let mut all = Texts::default();
    all.add(function);
    all.number(ops.iter().map(|op| op.keys.len()).sum());
    ops.iter().flat_map(|op| &op.keys).for_each(|key| all.add(key));
    all.add(now);
    all.add(word);
    for run in ops.chunk_by(|a, b| a.name == b.name && a.args.len() == b.args.len()) {
        all.add(run[0].name);
        all.number(run[0].args.len());
        all.number(run.len());
        run.iter().flat_map(|op| &op.args).for_each(|arg| all.add(arg));
    }
    Arguments { bytes: all.bytes.into(), ends: all.ends }
}

/// Texts one behind the other in one allocation, kept until the call is answered: it may have to be
/// made again.
pub(super) struct Arguments {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Arguments {
    /// The arguments, to be sent.
    pub(super) fn values(&self) -> Vec<Value> {
        let mut begin = 0;
        let value =
            |end: &usize| Value::Bytes(self.bytes.slice(std::mem::replace(&mut begin, *end)..*end));
        self.ends.iter().map(value).collect()
    }
}

#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    fn add(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn number(&mut self, number: usize) {
        self.add(&number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_one_kind_share_their_header() {
        let device = |key: &str| Op::read("device", [key.to_owned()]).arg("7");
        let both = Op::read("token", ["c".to_owned(), "d".to_owned()]).arg("").arg("x");
        let ops = [device("a"), device("b"), both, device("e")];
        let args = arguments("read", "", "w", &ops).values();
        let texts: Vec<String> = args.iter().filter_map(Value::as_string).collect();
        let expected = "read 5 a b c d e  w device 1 2 7 7 token 2 1  x device 1 1 7";
        assert_eq!(texts.join(" "), expected);
    }
}
