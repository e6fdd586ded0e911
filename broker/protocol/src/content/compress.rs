//! Packing and unpacking bodies, under bounds of memory and size.

use std::io::{Read, Write};

use super::{Compression, Refusal};
use crate::{Limits, message::Reason};

/// Below this size a body may be as much larger than its packed form as it likes.
const FREE: usize = 1024 * 1024;

/// Unpacks `body`, giving up at `limits.decompressed` bytes and, beyond 1 MiB, at `limits.ratio` times its size.
pub(crate) fn decompress(method: &str, body: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let Some(compression) = Compression::parse(method) else {
        return Err((Reason::UnknownCompression, format!("unknown compression {}", super::cut(method))));
    };
    let bad = |err: &dyn std::fmt::Display| (Reason::BadCompression, super::cut(&err.to_string()));
    let reader: Box<dyn Read + '_> = match compression {
        Compression::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(body)),
        Compression::Bzip2 => Box::new(bzip2_rs::DecoderReader::new(body)),
        Compression::Xz => {
            // its dictionary is allocated as large as the header says
            let memory = u32::try_from(limits.decompressed / 1024 + 1024).unwrap_or(u32::MAX);
            Box::new(lzma_rust2::XzReader::new_mem_limit(body, false, memory))
        }
        Compression::Zstd => {
            let window = u64::try_from(limits.decompressed).unwrap_or(u64::MAX);
            let reader = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(body, window);
            Box::new(reader.map_err(|err| bad(&err))?)
        }
        Compression::Brotli => Box::new(brotli_decompressor::Decompressor::new(body, 4096)),
    };
    let ceiling = limits.decompressed.min(body.len().saturating_mul(limits.ratio).max(FREE));
    let mut out = Vec::new();
    let bound = u64::try_from(ceiling).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(bound).read_to_end(&mut out).map_err(|err| bad(&err))?;
    if out.len() > ceiling {
        return Err((
            Reason::TooLarge,
            format!("more than {ceiling} bytes from {} compressed ones", body.len()),
        ));
    }
    Ok(out)
}

/// Packs `body`; `None` if there is no writer for the method.
pub(crate) fn compress(method: Compression, body: &[u8]) -> Option<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 4);
    // writing to a Vec cannot fail
    match method {
        Compression::Zlib => {
            let mut writer = flate2::write::ZlibEncoder::new(room, flate2::Compression::default());
            writer.write_all(body).ok()?;
            writer.finish().ok()
        }
        Compression::Xz => {
            let mut writer = lzma_rust2::XzWriter::new(room, lzma_rust2::XzOptions::default()).ok()?;
            writer.write_all(body).ok()?;
            writer.finish().ok()
        }
        Compression::Zstd => {
            Some(ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest))
        }
        Compression::Bzip2 | Compression::Brotli => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::{
        collection::vec,
        prelude::*,
        sample::{Index, select},
    };

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let body = format!("[[{}], {{}}, null]", "1, ".repeat(2000));
        for method in [Compression::Zlib, Compression::Xz, Compression::Zstd] {
            let packed = compress(method, body.as_bytes()).unwrap();
            assert!(packed.len() < body.len() / 4, "{method:?}");
            assert_eq!(
                decompress(method.mime(), &packed, &Limits::DEFAULT).unwrap(),
                body.as_bytes(),
                "{method:?}"
            );
            // cut off, it is an error and no shorter body
            let (reason, _) =
                decompress(method.mime(), &packed[..packed.len() / 2], &Limits::DEFAULT).unwrap_err();
            assert_eq!(reason, Reason::BadCompression, "{method:?}");
        }
        assert!(compress(Compression::Brotli, b"x").is_none());
    }

    #[test]
    fn bombs_are_given_up() {
        let bomb = vec![b' '; 1_200_000];
        for method in [Compression::Zlib, Compression::Xz, Compression::Zstd] {
            let packed = compress(method, &bomb).unwrap();
            let (reason, _) = decompress(method.mime(), &packed, &Limits::DEFAULT).unwrap_err();
            assert_eq!(reason, Reason::TooLarge, "{method:?}");
        }
    }

    /// 1,200,000 spaces, by `bz2.compress` of Python.
    const BZIP2: &str = "QlpoOTFBWSZTWde0ticACTCQAsAAAAIACCAAMMwFKaaCiNhCiPF3JFOFCQ17S2Jw";

    #[test]
    fn bzip2_is_read_and_bounded() {
        let packed = STANDARD.decode(BZIP2).unwrap();
        let (reason, _) = decompress("bzip2", &packed, &Limits::DEFAULT).unwrap_err();
        assert_eq!(reason, Reason::TooLarge);
        let more = Limits { ratio: 100_000, ..Limits::DEFAULT };
        assert_eq!(decompress("application/x-bz2", &packed, &more).unwrap(), vec![b' '; 1_200_000]);
        assert!(decompress("bzip2", &packed[..packed.len() / 2], &more).is_err());
    }

    proptest! {
        #[test]
        fn no_damage_panics(
            method in select(vec!["zlib", "bzip2", "xz", "zstd", "brotli"]),
            damage in vec((any::<Index>(), any::<u8>()), 0..8),
            cut in any::<Index>(),
        ) {
            let body = b"[[1, 2, 3, 4], {}, null] and so on and so on and so on";
            let mut packed = match method {
                "bzip2" => STANDARD.decode(BZIP2).unwrap(),
                "brotli" => vec![0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03],
                method => compress(Compression::parse(method).unwrap(), body).unwrap(),
            };
            for (place, byte) in damage {
                let place = place.index(packed.len());
                packed[place] = byte;
            }
            packed.truncate(cut.index(packed.len()) + 1);
            let _ = decompress(method, &packed, &Limits::DEFAULT);
        }
    }

    #[test]
    fn brotli_is_read() {
        // an uncompressed meta-block, made by hand: header, length, bytes, end
        let plain = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decompress("application/x-brotli", &plain, &Limits::DEFAULT).unwrap(), b"hello");
        assert!(decompress("brotli", &plain[..5], &Limits::DEFAULT).is_err());
        assert!(decompress("brotli", b"garbage", &Limits::DEFAULT).is_err());
    }
}
