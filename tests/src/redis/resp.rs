//! The protocol of Redis (RESP 2), blocking, as far as tests need it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::tls;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing there.
    Nil,
    /// A number.
    Integer(i64),
    /// A simple or a bulk string.
    Bytes(Vec<u8>),
    /// An array.
    List(Vec<Self>),
    /// A refusal, such as `OOM command not allowed ...`.
    Error(String),
}

/// A connection. Each answer is waited for, for 30 s at most.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Client {
    /// Connects over TCP.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(Box::new(connect(address)?)))
    }

    /// Connects over TLS with the certificates in `directory`.
    pub(super) fn connect_tls(address: SocketAddr, directory: &Path) -> io::Result<Self> {
        Ok(Self::over(Box::new(tls::connect(connect(address)?, directory)?)))
    }

    /// Connects over a Unix socket.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(Box::new(stream)))
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// One command: `client.call(&["SET", "a", "b"])`.
    ///
    /// # Panics
    /// If there is no answer, or an error. [`Client::try_call`] returns both.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Value {
        let shown = words.first().map(|word| String::from_utf8_lossy(word.as_ref()).into_owned());
        match self.try_call(words) {
            Ok(Value::Error(error)) => panic!("{shown:?}: {error}"),
            Ok(value) => value,
            Err(error) => panic!("{shown:?}: {error}"),
        }
    }

    /// One command.
    ///
    /// # Errors
    /// If the connection fails. A refusal by Redis is [`Value::Error`].
    pub fn try_call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<Value> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&command)?;
        self.stream.get_mut().flush()?;
        self.read()
    }

    /// The next answer, or the next message after `SUBSCRIBE`.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Value::Bytes(rest.as_bytes().to_vec()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()?),
            "$" | "*" if number()? < 0 => Value::Nil,
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Value::Bytes(bytes)
            }
            "*" => Value::List((0..number()?).map(|_| self.read()).collect::<io::Result<_>>()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Value {
    /// A string's text; `None` of anything else.
    #[must_use]
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Bytes(bytes) => String::from_utf8(bytes).ok(),
            Self::Nil | Self::Integer(_) | Self::List(_) | Self::Error(_) => None,
        }
    }

    /// A string's text.
    ///
    /// # Panics
    /// If it is anything else.
    #[must_use]
    pub fn text(&self) -> String {
        self.clone().into_text().unwrap_or_else(|| panic!("a text, not {self:?}"))
    }

    /// A number.
    ///
    /// # Panics
    /// If it is anything else.
    #[must_use]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            Self::Nil | Self::Bytes(_) | Self::List(_) | Self::Error(_) => {
                panic!("a number, not {self:?}")
            }
        }
    }

    /// The items of an array.
    ///
    /// # Panics
    /// If it is anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Nil | Self::Integer(_) | Self::Bytes(_) | Self::Error(_) => {
                panic!("a list, not {self:?}")
            }
        }
    }
}

/// The value of `name` in a text with lines of `name:value`.
pub(super) fn field(info: &str, name: &str) -> Option<String> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(io::Cursor<Vec<u8>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(bytes: &str) -> io::Result<Value> {
        let script = Script(io::Cursor::new(bytes.as_bytes().to_vec()));
        Client::over(Box::new(script)).try_call(&["PING"])
    }

    #[test]
    fn answers_are_read() {
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        for (bytes, value) in [
            ("+OK\r\n", text("OK")),
            (":-3\r\n", Value::Integer(-3)),
            ("$4\r\na\r\nb\r\n", text("a\r\nb")),
            ("$-1\r\n", Value::Nil),
            ("*-1\r\n", Value::Nil),
            ("-ERR no\r\n", Value::Error("ERR no".to_owned())),
            (
                "*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
                Value::List(vec![Value::Integer(1), Value::List(vec![text("")])]),
            ),
        ] {
            assert_eq!(read(bytes).unwrap(), value, "{bytes:?}");
        }
        for bytes in ["", "+OK", "$5\r\nab", "?\r\n", "\r\n", ":x\r\n"] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nab:1\r\na:2\r\n";
        assert_eq!(field(info, "a").as_deref(), Some("2"));
        assert_eq!(field(info, "c"), None);
    }
}
