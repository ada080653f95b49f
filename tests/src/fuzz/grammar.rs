//! The third reader of HTTP: the grammar of RFC 9112, line by line and without haste, from which
//! every refusal has its reason.

use otter_protocol::Config;

/// What a reader makes of the request at the front of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not all of it is there.
    Partial,
    /// It must or may be refused.
    Faulty(Class),
    /// It is a request.
    Good(Good),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) http_1_1: bool,
    pub(super) body: Vec<u8>,
    pub(super) keep_alive: bool,
    /// Where the next one begins.
    pub(super) end: usize,
}

/// Why a request is refused, by the section of RFC 9112 that allows or demands it (docs/fuzzing.md
/// has the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 2.2: a CR or LF that is no line end, or an LF without its CR.
    LineEnd,
    /// 2.3: another version than 1.0 and 1.1.
    Version,
    /// 3: no `method SP target SP version`.
    RequestLine,
    /// 3.2: no target in one of the four forms.
    Target,
    /// 3.2: no `Host`, or two.
    Host,
    /// 5: no `name ":" value`.
    FieldLine,
    /// 6.1: a coding that is not just `chunked`, or any in HTTP/1.0.
    Coding,
    /// 6.1, 6.3: a coding and a length.
    CodingAndLength,
    /// 6.2, 6.3: a length that is no number, or more than one.
    Length,
    /// 7.1: a chunk that is none.
    Chunk,
    /// RFC 9110 10.1.1: an expectation that is not known.
    Expectation,
    /// Of our own: two credentials (docs/wire.md 1.0).
    Credential,
    /// 3, 5.4, 7.1.1: larger than a limit of the server's.
    Limit,
    /// 3.2.1: the target holds an octet that RFC 3986 wants percent-encoded. We take it, as a path
    /// or query that leads nowhere.
    Octet,
    /// 3.2.2: the authority of an absolute target is not one. We do not look at it, as we do not
    /// look at `Host`.
    Authority,
    /// RFC 9110 7.6.1: `Connection` holds an octet beyond ASCII. The options beside it count for
    /// us.
    Connection,
}

/// Reads the request at the front of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Verdict {
    match Reader::new(bytes).request() {
        Ok(good) => Verdict::Good(good),
        Err(None) => Verdict::Partial,
        Err(Some(class)) => Verdict::Faulty(class),
    }
}

/// `None`: not all is there.
type Outcome<T> = Result<T, Option<Class>>;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    config: Config,
}

/// Names in lower case, values without blanks around them.
type Fields = Vec<(String, Vec<u8>)>;

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, config: Config::default() }
    }

    fn request(mut self) -> Outcome<Good> {
        while self.rest().starts_with(b"\n") || self.rest().starts_with(b"\r\n") {
            self.at += if self.rest()[0] == b'\n' { 1 } else { 2 };
        }
        let start = self.at;
        let (method, target, http_1_1) = self.request_line()?;
        let mut fields = Fields::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            fields.push(field(line)?);
        }
        if self.at - start > self.config.head_bytes_max || fields.len() > self.config.headers_max {
            return Err(Some(Class::Limit));
        }
        let (path, query) = form(&method, &target)?;
        check(&fields, http_1_1)?;
        let body = self.body(&fields, http_1_1)?;
        let has = |token: &str| list(&fields, "connection").any(|e| e.eq_ignore_ascii_case(token));
        let keep_alive = !has("close") && (http_1_1 || has("keep-alive"));
        Ok(Good { method, path, query, http_1_1, body, keep_alive, end: self.at })
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Up to CR LF, which are dropped.
    fn line(&mut self) -> Outcome<&'a [u8]> {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Err(None) };
        let line = rest[..end].strip_suffix(b"\r").ok_or(Some(Class::LineEnd))?;
        if line.contains(&b'\r') {
            return Err(Some(Class::LineEnd));
        }
        self.at += end + 1;
        Ok(line)
    }

    fn request_line(&mut self) -> Outcome<(String, String, bool)> {
        let line = self.line()?;
        let line = std::str::from_utf8(line).map_err(|_| Some(Class::RequestLine))?;
        let parts: Vec<&str> = line.split(' ').collect();
        let [method, target, version] = parts[..] else { return Err(Some(Class::RequestLine)) };
        if !is_token(method.as_bytes()) || target.is_empty() {
            return Err(Some(Class::RequestLine));
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Some(Class::Target));
        }
        let http_1_1 = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return Err(Some(Class::Version)),
        };
        if target.len() > self.config.target_bytes_max {
            return Err(Some(Class::Limit));
        }
        Ok((method.to_owned(), target.to_owned(), http_1_1))
    }

    fn body(&mut self, fields: &Fields, http_1_1: bool) -> Outcome<Vec<u8>> {
        let codings: Vec<_> = values(fields, "transfer-encoding").collect();
        let lengths: Vec<_> = values(fields, "content-length").collect();
        match (&codings[..], &lengths[..]) {
            ([], []) => Ok(Vec::new()),
            ([], [length]) => {
                // More digits hold no length that is taken, or zeros that nobody writes.
                let is_short = (1..=19).contains(&length.len());
                let is_number = is_short && length.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(length).ok().filter(|_| is_number);
                let length = length.ok_or(Some(Class::Length))?;
                let length: usize = length.parse().map_err(|_| Some(Class::Length))?;
                if length > self.config.body_bytes_max {
                    return Err(Some(Class::Limit));
                }
                self.take(length).map(<[u8]>::to_vec)
            }
            ([], _) => Err(Some(Class::Length)),
            ([coding], []) if http_1_1 && coding.eq_ignore_ascii_case(b"chunked") => self.chunks(),
            (_, []) => Err(Some(Class::Coding)),
            _ => Err(Some(Class::CodingAndLength)),
        }
    }

    fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let taken = self.rest().get(..count).ok_or(None)?;
        self.at += count;
        Ok(taken)
    }

    fn chunks(&mut self) -> Outcome<Vec<u8>> {
        let mut body = Vec::new();
        let mut excess = 0;
        loop {
            let line = self.line().map_err(chunk)?;
            let size = chunk_size(line)?;
            let line = line.len() + 2;
            excess = (excess + line).saturating_sub(size.saturating_mul(2).saturating_add(16));
            let line_max = self.config.chunk_line_bytes_max;
            if line > line_max || excess > EXCESS_LINES * line_max {
                return Err(Some(Class::Limit));
            }
            if size == 0 {
                break;
            }
            if size > self.config.body_bytes_max - body.len() {
                return Err(Some(Class::Limit));
            }
            body.extend_from_slice(self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return Err(Some(Class::Chunk));
            }
        }
        let trailer = self.at;
        loop {
            let line = self.line().map_err(chunk)?;
            if self.at - trailer > self.config.trailer_bytes_max {
                return Err(Some(Class::Limit));
            }
            if line.is_empty() {
                return Ok(body);
            }
            field(line).map_err(chunk)?;
        }
    }
}

/// Whatever is wrong in a chunked body is wrong with a chunk.
fn chunk(class: Option<Class>) -> Option<Class> {
    class.map(|_| Class::Chunk)
}

/// 7.1: `chunk-size [ chunk-ext ]`. Of extensions what is quoted may hold anything.
fn chunk_size(line: &[u8]) -> Outcome<usize> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, mut extensions) = line.split_at(digits);
    if !(1..=16).contains(&digits) {
        return Err(Some(Class::Chunk));
    }
    while !extensions.is_empty() {
        // Blanks stand before something, and not before the line end.
        let rest = after_blanks(extensions).strip_prefix(b";").ok_or(Some(Class::Chunk))?;
        let rest = after_blanks(rest);
        let name = rest.iter().take_while(|byte| is_token(&[**byte])).count();
        if name == 0 {
            return Err(Some(Class::Chunk));
        }
        extensions = match after_blanks(&rest[name..]).strip_prefix(b"=") {
            Some(value) => after_value(after_blanks(value))?,
            None => &rest[name..],
        };
    }
    let size = std::str::from_utf8(size).unwrap_or_default();
    // Beyond what a machine counts is beyond every limit.
    Ok(usize::from_str_radix(size, 16).unwrap_or(usize::MAX))
}

/// What follows blanks.
fn after_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| b" \t".contains(byte)).count()..]
}

/// What follows a token or a quoted string.
fn after_value(value: &[u8]) -> Outcome<&[u8]> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let count = value.iter().take_while(|byte| is_token(&[**byte])).count();
        return if count == 0 { Err(Some(Class::Chunk)) } else { Ok(&value[count..]) };
    };
    let mut escaped = false;
    for (at, byte) in quoted.iter().enumerate() {
        match byte {
            _ if !is_text(*byte) => break,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(&quoted[at + 1..]),
            _ => {}
        }
    }
    Err(Some(Class::Chunk))
}

/// 5: `field-name ":" OWS field-value OWS`.
fn field(line: &[u8]) -> Outcome<(String, Vec<u8>)> {
    let faulty = Some(Class::FieldLine);
    let colon = line.iter().position(|byte| *byte == b':').ok_or(faulty)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || !value.iter().all(|byte| is_text(*byte)) {
        return Err(faulty);
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value.trim_ascii().to_vec()))
}

/// 3.2: origin, absolute, authority, asterisk; as path and query.
fn form(method: &str, target: &str) -> Outcome<(String, Option<String>)> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    if path.starts_with('/') || method == "CONNECT" {
        return Ok((path.to_owned(), query));
    }
    if path == "*" && method == "OPTIONS" && query.is_none() {
        return Ok((path.to_owned(), query));
    }
    let (scheme, rest) = path.split_once("://").ok_or(Some(Class::Target))?;
    let is_known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // RFC 9110 4.2.1, 4.2.4: a host there must be, and no user.
    if !is_known || authority.is_empty() || authority.starts_with(':') || authority.contains('@') {
        return Err(Some(Class::Target));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok((path.to_owned(), query))
}

fn check(fields: &Fields, http_1_1: bool) -> Outcome<()> {
    let hosts = values(fields, "host").count();
    if hosts > 1 || hosts == 0 && http_1_1 {
        return Err(Some(Class::Host));
    }
    if values(fields, "authentication").count() > 1 {
        return Err(Some(Class::Credential));
    }
    if list(fields, "expect").any(|element| !element.eq_ignore_ascii_case("100-continue")) {
        return Err(Some(Class::Expectation));
    }
    Ok(())
}

fn values<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
}

/// The elements of all lists of this name (RFC 9110 5.6.1).
fn list(fields: &Fields, name: &str) -> impl Iterator<Item = String> {
    let lists: Vec<_> = values(fields, name).map(String::from_utf8_lossy).collect();
    let all: Vec<String> = lists
        .iter()
        .flat_map(|list| list.split(','))
        .map(|element| element.trim_ascii().to_owned())
        .filter(|element| !element.is_empty())
        .collect();
    all.into_iter()
}

/// RFC 9110 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// RFC 9110 5.5, and HTAB.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// Lines of chunks may be that many times longer than one, together and beyond their data.
const EXCESS_LINES: usize = 16;
