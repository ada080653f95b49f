//! Is it fit to be published? The rules for images, bundles and their labels (docs/wire.md 5 and
//! 6).

use otter_protocol::{Alias, Kind, Offer};

use crate::failure::Failure;

/// What a platform's devices can take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// The text before `:`.
    name: &'static str,
    pub(crate) form: Form,
}

/// How a platform's firmware is made up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One image.
    Image {
        /// What it is called in a directory; the first that is there counts.
        names: &'static [&'static str],
        /// Its first bytes are one of these; empty if anything goes.
        beginnings: &'static [&'static [u8]],
    },
    /// Text files.
    Files {
        /// A file that belongs to it whatever its extension.
        header: &'static str,
        /// What its source files end with, without the dot.
        extension: &'static str,
    },
}

/// Finds the rules for a platform by the text before `:`.
pub(crate) fn platform(text: &str) -> Result<&'static Platform, Failure> {
    label("platform", text, PLATFORM_BYTES_MAX)?;
    let name = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(found) = PLATFORMS.iter().find(|platform| platform.name == name) {
        return Ok(found);
    }
    let supported: Vec<_> = PLATFORMS.iter().map(|platform| platform.name).collect();
    let hint = match name.as_str() {
        "nodejs" => "nodejs devices update themselves from git and never fetch an image".to_owned(),
        "sigfox" => {
            "a sigfox downlink carries 8 bytes; there is no way to fetch an image".to_owned()
        }
        _ => format!("supported are {}", supported.join(", ")),
    };
    Err(Failure::usage(format!("platform `{text}` is not supported")).hint(hint))
}

/// Checks a version.
pub(crate) fn version(text: &str) -> Result<(), Failure> {
    label("version", text, Offer::VERSION_BYTES_MAX)?;
    if Alias::clean(text).is_some_and(|clean| clean.as_str() == text) {
        return Ok(());
    }
    // The rules for an alias (docs/wire.md 2.2), which the store insists on.
    Err(Failure::usage(format!("devices would misunderstand the version `{text}`"))
        .hint("leave out blanks around it, and words of the protocol such as `registration`"))
}

/// Checks the hash of an environment, or the id of a build.
pub(crate) fn opaque(what: &str, text: &str) -> Result<(), Failure> {
    label(what, text, OPAQUE_BYTES_MAX)
}

/// Checks what was received, knowing its length and how it begins; returns what is odd and yet
/// no reason to refuse.
pub(crate) fn content(
    platform: &Platform,
    kind: Kind,
    beginning: &[u8],
    size: u64,
) -> Result<Option<String>, Failure> {
    match (kind, &platform.form) {
        (Kind::Bundle, Form::Files { .. }) => Ok(None),
        (Kind::Bundle, Form::Image { .. }) => {
            Err(Failure::failed(format!("{} devices take an image, not files", platform.name)))
        }
        (Kind::Image, Form::Files { header, extension }) => {
            let error = format!("{} devices take text files, not an image", platform.name);
            let hint = format!("give a directory with {header} and *.{extension} in it");
            Err(Failure::failed(error).hint(hint))
        }
        (Kind::Image, Form::Image { beginnings, .. }) => {
            image(platform.name, beginnings, beginning, size)
        }
    }
}

fn image(
    name: &str,
    beginnings: &[&[u8]],
    beginning: &[u8],
    size: u64,
) -> Result<Option<String>, Failure> {
    if size < IMAGE_BYTES_MIN {
        let error = format!("the image has {size} bytes; the least is {IMAGE_BYTES_MIN}");
        return Err(Failure::failed(error).hint("is it the file that the build left?"));
    }
    if !beginnings.is_empty() && !beginnings.iter().any(|start| beginning.starts_with(start)) {
        let found: Vec<_> = beginning.iter().take(2).map(|b| format!("{b:02X}")).collect();
        let error = format!("this is no {name} image: it begins with {}", found.join(" "));
        let hint = "E9 begins an image for ESP chips, 1F 8B one compressed by gzip; give the .bin \
                    file, not the .elf or .hex";
        return Err(Failure::failed(error).hint(hint));
    }
    Ok((size < IMAGE_BYTES_USUAL)
        .then(|| format!("the image has only {size} bytes; THiNX' builder refuses such")))
}

fn label(what: &str, text: &str, bytes_max: usize) -> Result<(), Failure> {
    let error = if text.trim().is_empty() {
        format!("the {what} is empty")
    } else if text.len() > bytes_max {
        format!("the {what} has {} bytes; the most is {bytes_max}", text.len())
    } else if text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\' | '{' | '}')) {
        format!("the {what} has a quote, backslash, brace or control character in it")
    } else {
        return Ok(());
    };
    // Old libraries cut replies apart by text search (docs/wire.md 2.2).
    Err(Failure::usage(error))
}

/// Least bytes of an image: THiNX serves no smaller one (docs/wire.md 6.1).
pub(crate) const IMAGE_BYTES_MIN: u64 = 1000;
/// THiNX' builder takes a smaller image for a mistake.
const IMAGE_BYTES_USUAL: u64 = 10_000;
const PLATFORM_BYTES_MAX: usize = 64;
const OPAQUE_BYTES_MAX: usize = 128;

/// How an image for an ESP chip begins, plain or compressed by gzip.
const ESP: &[&[u8]] = &[&[0xE9], &[0x1F, 0x8B]];

/// docs/wire.md 5: the platforms that update; 6.1 and 6.2: what they are made up of.
const PLATFORMS: [Platform; 8] = [
    Platform { name: "arduino", form: Form::Image { names: &["firmware.bin"], beginnings: ESP } },
    Platform {
        name: "platformio",
        form: Form::Image { names: &["firmware.bin"], beginnings: ESP },
    },
    Platform { name: "pine64", form: Form::Image { names: &["firmware.bin"], beginnings: &[] } },
    Platform {
        name: "mongoose",
        form: Form::Image { names: &["fw.zip", "firmware.bin"], beginnings: &[] },
    },
    Platform {
        name: "mongooseos",
        form: Form::Image { names: &["fw.zip", "firmware.bin"], beginnings: &[] },
    },
    Platform { name: "nodemcu", form: Form::Files { header: "config.lua", extension: "lua" } },
    Platform { name: "micropython", form: Form::Files { header: "boot.py", extension: "py" } },
    Platform { name: "python", form: Form::Files { header: "thinx.json", extension: "py" } },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_known_by_the_text_before_the_colon() {
        for (text, name) in
            [("arduino", "arduino"), ("platformio:esp8266", "platformio"), ("NodeMCU", "nodemcu")]
        {
            assert_eq!(platform(text).expect(text).name, name);
        }
        for (text, reason) in
            [("nodejs", "git"), ("sigfox:x", "downlink"), ("esp32", "arduino, "), ("\"", "")]
        {
            assert!(platform(text).expect_err(text).to_string().contains(reason), "{text}");
        }
    }

    #[test]
    fn labels_fit_into_the_replies_of_old_libraries() {
        for text in ["1.2.0", "repo:v1.2.3", &"1".repeat(Offer::VERSION_BYTES_MAX)] {
            assert_eq!(version(text), Ok(()));
        }
        let long = "1".repeat(Offer::VERSION_BYTES_MAX + 1);
        for text in ["", " ", " 1", "registration", "1\"2", "1\\2", "1}}", "1\n", &long] {
            assert!(version(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn images_are_looked_at() {
        let check = |name: &str, beginning: &[u8], size| {
            content(platform(name).expect(name), Kind::Image, beginning, size)
        };
        assert_eq!(check("arduino", &[0xE9, 1], 10_000), Ok(None));
        assert_eq!(check("arduino", &[0x1F, 0x8B], 10_000), Ok(None));
        assert_eq!(check("pine64", &[0x7F], 10_000), Ok(None));
        assert!(check("arduino", &[0xE9], 1000).expect("accepted").is_some());
        assert!(check("arduino", &[0xE9], 999).is_err());
        let error = check("platformio", &[0x7F, 0x45], 10_000).expect_err("an ELF file");
        assert!(error.error.contains("7F 45"), "{error}");
        assert!(content(platform("arduino").expect("known"), Kind::Bundle, b"{", 100).is_err());
        let error = check("nodemcu", &[0xE9], 20_000).expect_err("an image");
        assert!(error.to_string().contains("*.lua"), "{error}");
        assert_eq!(content(platform("nodemcu").expect("known"), Kind::Bundle, b"{", 100), Ok(None));
    }
}
