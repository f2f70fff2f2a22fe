//! The files of the page, in the program itself. They lie in `client/page`, as they are served: nothing builds them.

/// Path, kind, bytes.
const FILES: [(&str, &str, &[u8]); 16] = [
    ("/", HTML, include_bytes!("../../../page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("../../../page/style.css")),
    ("/icon.svg", "image/svg+xml", include_bytes!("../../../page/icon.svg")),
    ("/vendor.js", SCRIPT, include_bytes!("../../../page/vendor.js")),
    ("/app.js", SCRIPT, include_bytes!("../../../page/app.js")),
    ("/net.js", SCRIPT, include_bytes!("../../../page/net.js")),
    ("/store.js", SCRIPT, include_bytes!("../../../page/store.js")),
    ("/chat.js", SCRIPT, include_bytes!("../../../page/chat.js")),
    ("/panels.js", SCRIPT, include_bytes!("../../../page/panels.js")),
    ("/parts.js", SCRIPT, include_bytes!("../../../page/parts.js")),
    ("/texts.js", SCRIPT, include_bytes!("../../../page/texts.js")),
    ("/dialogs.js", SCRIPT, include_bytes!("../../../page/dialogs.js")),
    ("/verify.js", SCRIPT, include_bytes!("../../../page/verify.js")),
    ("/texts-later.js", SCRIPT, include_bytes!("../../../page/texts-later.js")),
    ("/qr/index.js", SCRIPT, include_bytes!("../../../page/qr/index.js")),
    ("/qr/decode.js", SCRIPT, include_bytes!("../../../page/qr/decode.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The kind and the bytes of a file.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    FILES.iter().find(|(at, ..)| *at == path).map(|(_, kind, bytes)| (*kind, *bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The files of preact and htm, and of codes for cameras, as npm has them (docs/page.md).
    const VENDORED: [(&str, &str); 3] = [
        ("/vendor.js", "75c2b23d96a698bfadde52c7cae5c22e2df7710d"),
        ("/qr/index.js", "a5c114870275922aef9217ac1aa3d6abd5ed4119"),
        ("/qr/decode.js", "bc9ed4c6d171e078dc4c101cd3ed921705859d9f"),
    ];
    /// What is loaded where somebody wants it, and not with the page.
    const LATER: [&str; 5] =
        ["/dialogs.js", "/verify.js", "/texts-later.js", "/qr/index.js", "/qr/decode.js"];

    fn own_scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        let is_vendored = |path: &str| VENDORED.iter().any(|(vendored, _)| *vendored == path);
        let own = FILES.iter().filter(move |(path, kind, _)| *kind == SCRIPT && !is_vendored(path));
        own.map(|(path, _, bytes)| (*path, std::str::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn the_page_is_small() {
        let at_first = FILES.iter().filter(|(path, ..)| !LATER.contains(path));
        let bytes: usize = at_first.map(|(.., bytes)| bytes.len()).sum();
        assert!(bytes <= 60_000, "{bytes} bytes, and it may have 60,000");
        let lines: usize = own_scripts().map(|(_, text)| text.lines().count()).sum();
        assert!(lines <= 2_000, "{lines} lines, and it may have 2,000");
    }

    #[test]
    fn the_libraries_are_those_that_were_looked_at() {
        for (path, hash) in VENDORED {
            let (_, bytes) = find(path).unwrap();
            assert_eq!(blake3::hash(bytes).to_hex()[..hash.len()], *hash, "{path}");
        }
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let files = |of: &str| {
            let files = std::fs::read_dir(dir.join(of)).unwrap().map(Result::unwrap);
            let files = files.filter(|file| file.file_type().unwrap().is_file());
            let name = |file: std::fs::DirEntry| file.file_name().into_string().unwrap();
            files.map(|file| format!("/{of}{}", name(file))).collect::<Vec<_>>()
        };
        let mut there = [files(""), files("qr/")].concat();
        there.iter_mut().filter(|path| *path == "/index.html").for_each(|path| *path = "/".into());
        let mut served: Vec<String> = FILES.iter().map(|(path, ..)| (*path).into()).collect();
        there.sort();
        served.sort();
        assert_eq!(there, served);
    }

    #[test]
    fn nothing_in_the_page_makes_markup_of_text_or_asks_another_host() {
        for (path, text) in own_scripts() {
            for unwanted in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "document.cookie",
                "http://",
            ] {
                assert!(!text.contains(unwanted), "{path} has {unwanted}");
            }
        }
        let (_, html) = find("/").unwrap();
        let html = std::str::from_utf8(html).unwrap();
        assert!(
            !html.contains("<style")
                && !html.contains("//")
                && html.matches("<script").count() == 1,
            "{html}"
        );
    }
}
