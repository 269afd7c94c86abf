//! The name of an image, and patterns of names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rampart::hardening::reference::{Pattern, has_digest, is_reference, normal, tag};

fuzz_target!(|image: &str| {
    // Names that are none are normalised too: exceptions do it before anything else has judged them.
    let whole = normal(image);
    let pattern = Pattern::parse(image);
    if let Ok(pattern) = &pattern {
        let again = Pattern::parse(&pattern.text).expect("what parses prints as what parses");
        assert_eq!((&again.text, &again.expression), (&pattern.text, &pattern.expression));
    }
    if !is_reference(image) {
        assert_eq!(tag(image), "", "no name, no tag");
        return;
    }
    assert!(is_reference(&whole), "{whole:?} is no name any more");
    assert_eq!((tag(&whole), has_digest(&whole)), (tag(image), has_digest(image)), "{whole:?} is another image");
    let registry = whole.split('/').next().unwrap_or_default();
    if registry.contains(['.', ':']) || registry == "localhost" {
        assert_eq!(normal(&whole), whole, "a name with its registry is normal");
    }
    let pattern = pattern.expect("a name is a pattern");
    assert!(pattern.matches(&whole), "{:?} does not match the image that it names", pattern.expression);

    // Taken apart and put together again.
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let explicit = name.strip_suffix(tag(image)).and_then(|name| name.strip_suffix(':'));
    match (explicit, digest) {
        (Some(name), _) => {
            assert!(is_reference(name));
            assert_eq!(tag(name), "latest");
        }
        (None, None) => assert_eq!(tag(&format!("{image}:latest")), "latest"),
        (None, Some(digest)) => assert_eq!(tag(&format!("{name}:a@{digest}")), "a"),
    }
});
