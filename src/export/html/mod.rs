//! The flame graph as one self-contained page: the profile as JSON, and a script that draws it.

mod counted;
mod data;
mod entries;
pub(super) mod pack;
pub(super) mod source;

use self::data::{Baseline, Shown};
use super::one_line;
use crate::profile::Profile;
use std::io::{self, Write};

const PAGE: &str = include_str!("../web/flamegraph.html");
const STYLE: &str = include_str!("../web/flamegraph.css");
/// The script's parts, in the order in which they run.
const SCRIPT: [&str; 11] = [
    include_str!("../web/data.js"),
    include_str!("../web/text.js"),
    include_str!("../web/weigh.js"),
    include_str!("../web/boxes.js"),
    include_str!("../web/search.js"),
    include_str!("../web/draw.js"),
    include_str!("../web/timeline.js"),
    include_str!("../web/sidebar.js"),
    include_str!("../web/image.js"),
    include_str!("../web/controls.js"),
    include_str!("../web/start.js"),
];

/// Writes the page. Source lines are read from the files that the profile names, where they are there.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    page(&profile.meta.program, &Shown { profile, current: profile, baseline: None }, out)
}

/// Writes a page that compares a profile with an earlier one, function by function.
pub fn write_diff(profile: &Profile, baseline: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let both = Profile::merge([profile.clone(), baseline.clone()]);
    let first_thread = profile.threads.len() as u32;
    let baseline = Some(Baseline { profile: baseline, first_thread });
    page(&profile.meta.program, &Shown { profile: &both, current: profile, baseline }, out)
}

fn page(program: &str, shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
    fill(PAGE, out, |name, out| match name {
        "title" => out.write_all(html_text(&one_line(program)).as_bytes()),
        "style" => out.write_all(STYLE.as_bytes()),
        "script" => SCRIPT.iter().try_for_each(|part| out.write_all(part.as_bytes())),
        "data" => data::write(shown, out),
        _ => Ok(()),
    })
}

/// Writes a template, which alternates text and the name of what goes there.
pub(super) fn fill(
    template: &str,
    out: &mut dyn Write,
    mut put: impl FnMut(&str, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut parts = template.split("@@");
    while let Some(text) = parts.next() {
        out.write_all(text.as_bytes())?;
        parts.next().map_or(Ok(()), |name| put(name, out))?;
    }
    Ok(())
}

pub(super) fn html_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{empty, profile, sample, text};
    use crate::profile::ThreadId;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn page(profile: &Profile) -> String {
        text(|out| write(profile, out))
    }

    fn data(page: &str) -> Value {
        let (_, rest) = page.split_once(r#"<script type="application/json" id="data">"#).unwrap();
        pack::tests::contents(rest.split_once("</script>").unwrap().0).0
    }

    #[test]
    fn needs_nothing_from_elsewhere() {
        let profile = profile(&[("main:1", 1)]);
        for page in [page(&profile), text(|out| write_diff(&profile, &empty(), out))] {
            // The name of a kind of element looks like an address.
            let page = page.replace("\"http://www.w3.org/2000/svg\"", "");
            for outside in ["http:", "https:", "src=", "@import", "url("] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert!(!page.contains("@@"));
        }
        for script in SCRIPT {
            for markup in ["</script", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("] {
                assert!(!script.contains(markup), "{markup}");
            }
        }
        assert!(!STYLE.contains("</style"));
    }

    proptest! {
        #[test]
        fn names_cannot_break_out(name in r#"(<|>|/|script|!--|]]>|"|'|\\|&|@@|\u{2028}|\PC|\x00){0,12}"#) {
            let mut profile = profile(&[]);
            let elements = |page: &str| page.matches('<').count();
            let plain = elements(&page(&profile));
            sample(&mut profile, ThreadId(0), [(name.as_str(), name.as_str(), 1)], 1);
            profile.meta.program = name.clone();
            profile.meta.command = vec![name.clone()];
            profile.meta.python = name.clone();
            profile.threads[0].name = name.as_str().into();
            profile.processes[0].program = name.clone();
            let page = page(&profile);
            prop_assert_eq!(elements(&page), plain);
            let data = data(&page);
            let name = json!(one_line(&name));
            prop_assert_eq!(&data["strings"][0], &name);
            prop_assert_eq!(&data["threads"][0][2], &name);
            prop_assert_eq!(&data["processes"][0][2], &name);
            prop_assert_eq!(&data["meta"]["program"], &name);
            prop_assert_eq!(&data["meta"]["python"], &name);
            prop_assert_eq!(&data["meta"]["command"][0], &name);
        }
    }
}
