//! HTTP answers as a client reads them.

/// One answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Status line and header lines, up to and including the empty line.
    pub head: String,
    /// Name and value of each header, in order, as sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Takes the first answer from `bytes`; also how long it is. `None` while it is not complete.
    /// An answer to `HEAD`, a 1xx, a 204 and a 304 have no body; all others must say their length.
    ///
    /// # Panics
    /// If the bytes are no HTTP/1.1 answer: no server of ours sends such.
    #[must_use]
    pub fn parse(bytes: &[u8], to_head: bool) -> Option<(Self, usize)> {
        let (reply, head_bytes) = Self::parse_head(bytes)?;
        let bodiless = to_head || matches!(reply.status, 100..200 | 204 | 304);
        let length = if bodiless { 0 } else { reply.body_bytes() };
        let end = head_bytes + length;
        let body = bytes.get(head_bytes..end)?.to_vec();
        Some((Self { body, ..reply }, end))
    }

    /// The same, of the head alone.
    ///
    /// # Panics
    /// As [`Reply::parse`].
    #[must_use]
    pub fn parse_head(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        Some((Self::from_head(&bytes[..end]), end))
    }

    fn from_head(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).expect("a head in ASCII").to_owned();
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").expect("an HTTP/1.1 status line");
        let status = status.get(..3).and_then(|code| code.parse().ok()).expect("a status code");
        let headers = lines
            .map(|line| line.split_once(": ").expect("a header line"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { status, head, headers, body: Vec::new() }
    }

    fn body_bytes(&self) -> usize {
        self.content_length().expect("a Content-Length")
    }

    /// The value of a header, whatever the case of its name; `None` if it is absent or repeated.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            (_, _) => None,
        }
    }

    /// The names of all headers, in order.
    #[must_use]
    pub fn header_names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// What `Content-Length` says.
    #[must_use]
    pub fn content_length(&self) -> Option<usize> {
        self.header("Content-Length")?.parse().ok()
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body in JSON")
    }

    /// Does the server say that it closes the connection?
    #[must_use]
    pub fn says_close(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_apart() {
        let bytes = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-a: b\r\n\r\nnoHTTP/1.1";
        let (reply, length) = Reply::parse(bytes, false).unwrap();
        assert_eq!((reply.status, reply.text(), length), (404, "no", bytes.len() - 8));
        assert_eq!(reply.header("x-A"), Some("b"));
        assert_eq!(Reply::parse(&bytes[..30], false), None);
        assert_eq!(Reply::parse(bytes, true).unwrap().0.body, b"");
    }
}
