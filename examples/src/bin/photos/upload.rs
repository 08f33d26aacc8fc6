//! What a client sends, and what is no photo.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use mmate_core::MessageId;
use mmate_examples::sign_in::Name;
use mmate_idempotency::protocol::Digest;
use serde::Deserialize;

/// The data of `send_photo` and `send_moment`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Request {
    /// The client's own: the same in every attempt to send the same.
    pub(crate) message_id: MessageId,
    pub(crate) recipient: Name,
    /// In base64, with or without `data:…;base64,` before it.
    content: String,
}

/// Under which event it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Photo,
    /// May also be a short film.
    Moment,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Photo, Self::Moment];

    /// The event of the client.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Self::Photo => "send_photo",
            Self::Moment => "send_moment",
        }
    }

    /// As it is in the database, and shown to the recipient.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Photo => "photo",
            Self::Moment => "moment",
        }
    }
}

/// A request that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) message_id: MessageId,
    pub(crate) recipient: Name,
    pub(crate) kind: Kind,
    pub(crate) format: Format,
    pub(crate) content: Bytes,
}

impl Upload {
    /// What is wrong with a request is told in its client's words.
    pub(crate) fn of(kind: Kind, request: Request, largest: usize) -> Result<Self, String> {
        let text = match request.content.split_once(";base64,") {
            Some((head, text)) if head.starts_with("data:") => text,
            _ => &request.content,
        };
        let too_large = || format!("the content is larger than {largest} bytes");
        // Four letters are three bytes, and two letters of padding none.
        if text.len() / 4 * 3 > largest + 2 {
            return Err(too_large());
        }
        let content = BASE64_STANDARD.decode(text);
        let content = content.map_err(|error| format!("the content is not base64: {error}"))?;
        if content.len() > largest {
            return Err(too_large());
        }
        let format = Format::of(&content).filter(|format| format.is_for(kind));
        let format = format.ok_or_else(|| match kind {
            Kind::Photo => "the content is not a JPEG, PNG, GIF or WebP".to_owned(),
            Kind::Moment => "the content is not a JPEG, PNG, GIF, WebP, MP4 or WebM".to_owned(),
        })?;
        let Request { message_id, recipient, .. } = request;
        Ok(Self { message_id, recipient, kind, format, content: content.into() })
    }

    /// By which two photos under one id are told apart.
    pub(crate) fn fingerprint(&self) -> Digest {
        let parts: [&[u8]; 3] =
            [self.kind.word().as_bytes(), self.recipient.as_str().as_bytes(), &self.content];
        Digest::of_parts(parts)
    }
}

/// What the first bytes say it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Mp4,
    WebM,
}

impl Format {
    const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::Gif, Self::WebP, Self::Mp4, Self::WebM];

    fn of(content: &[u8]) -> Option<Self> {
        Some(match content {
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::WebP,
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Self::Mp4,
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Self::WebM,
            _ if content.starts_with(b"\x89PNG\r\n\x1a\n") => Self::Png,
            _ if content.starts_with(b"GIF87a") || content.starts_with(b"GIF89a") => Self::Gif,
            _ => return None,
        })
    }

    fn is_for(self, kind: Kind) -> bool {
        kind == Kind::Moment || !matches!(self, Self::Mp4 | Self::WebM)
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Mp4 => "mp4",
            Self::WebM => "webm",
        }
    }

    /// The one whose extension it is.
    pub(crate) fn with_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Mp4 => "video/mp4",
            Self::WebM => "video/webm",
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;

    use super::{Format, Kind, Request, Upload};

    fn upload(kind: Kind, content: &str) -> Result<Upload, String> {
        let request = json!({"messageId": "m-1", "recipient": "bert", "content": content});
        Upload::of(kind, serde_json::from_value::<Request>(request).unwrap(), 100)
    }

    fn of_bytes(kind: Kind, bytes: &[u8]) -> Result<Upload, String> {
        upload(kind, &BASE64_STANDARD.encode(bytes))
    }

    #[test]
    fn the_first_bytes_say_what_it_is() {
        let png = b"\x89PNG\r\n\x1a\n and more";
        assert_eq!(of_bytes(Kind::Photo, png).unwrap().format, Format::Png);
        let with_head = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png));
        assert_eq!(&*upload(Kind::Photo, &with_head).unwrap().content, png);
        let film = b"\0\0\0\x20ftypisom";
        assert_eq!(of_bytes(Kind::Moment, film).unwrap().format, Format::Mp4);
        assert!(of_bytes(Kind::Photo, film).unwrap_err().contains("not a JPEG"));
        assert!(of_bytes(Kind::Photo, b"<html>").unwrap_err().contains("not a JPEG"));
        assert!(of_bytes(Kind::Photo, b"").is_err());
    }

    #[test]
    fn what_is_no_base64_or_too_large_is_told() {
        assert!(upload(Kind::Photo, "!").unwrap_err().contains("not base64"));
        let mut jpeg = [0; 101];
        jpeg[..3].copy_from_slice(&[0xff, 0xd8, 0xff]);
        assert!(of_bytes(Kind::Photo, &jpeg).unwrap_err().contains("larger than 100 bytes"));
        assert!(of_bytes(Kind::Photo, &jpeg[..100]).is_ok());
    }

    #[test]
    fn another_photo_recipient_or_kind_has_another_fingerprint() {
        let one = of_bytes(Kind::Photo, b"GIF89a").unwrap();
        let same = of_bytes(Kind::Photo, b"GIF89a").unwrap();
        assert_eq!(one.fingerprint(), same.fingerprint());
        let other = of_bytes(Kind::Photo, b"GIF89a!").unwrap();
        assert_ne!(one.fingerprint(), other.fingerprint());
        let moment = of_bytes(Kind::Moment, b"GIF89a").unwrap();
        assert_ne!(one.fingerprint(), moment.fingerprint());
    }
}
