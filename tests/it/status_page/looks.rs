//! How the status page looks in a browser, at the width of a phone and of a desk, light and dark.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::browser::Browser;
use super::busy_day;

/// What the page says of itself: how wide it is, what is cut off or broken in the middle of a word, which tables have no caption, and the least contrast of any text.
const LOOK: &str = include_str!("look.js");

fn picture(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/status-page");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    folder.join(format!("{name}.png"))
}

/// Looks at a page in every width and scheme, and takes pictures of it.
async fn look_at(browser: &mut Browser, name: &str, url: &str) {
    for (width, device) in [(360, "phone"), (1280, "desk")] {
        for scheme in ["light", "dark"] {
            browser.look(width, scheme).await;
            browser.open(url).await;
            let look = browser.evaluate(LOOK).await;
            browser.picture(&picture(&format!("{name}-{device}-{scheme}"))).await;
            let view = format!("{name} {device} {scheme}: {look}");
            assert_eq!(look["width"], width, "{view}");
            assert!(look["scrollWidth"].as_u64() <= look["width"].as_u64(), "nothing makes it scroll sideways: {view}");
            for faults in ["cutOff", "broken", "pale"] {
                assert_eq!(look[faults], json!([]), "{faults}, {view}");
            }
            assert_eq!((&look["withoutCaption"], &look["withoutLabel"]), (&json!(0), &json!(0)), "{view}");
            assert!(look["texts"].as_u64() > Some(10), "it has looked at some text: {view}");
            assert_eq!(look["dark"], scheme == "dark", "{view}");
            assert_eq!(browser.requested(), [url], "it asks for nothing but itself");
            assert_eq!(browser.complaints(), Vec::<&Value>::new(), "{view}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_and_legible_on_a_phone_and_on_a_desk_light_and_dark() {
    let day = busy_day().await;
    let mut browser = Browser::start().await;
    let url = |path: &str| format!("http://{}{path}", day.address);
    look_at(&mut browser, "overview", &url("/")).await;
    for (name, path) in [("failed", "/command?id=refused"), ("waiting", "/command?id=waits"), ("unknown", "/command?id=nobody")] {
        look_at(&mut browser, name, &url(path)).await;
    }
    day.stage.ledger().take_away();
    day.worker.without_ledger().await;
    look_at(&mut browser, "not-ready", &url("/")).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_look_up_works_in_a_browser_without_any_script() {
    let day = busy_day().await;
    let mut browser = Browser::start().await;
    browser.look(1280, "light").await;
    browser.without_script().await;
    browser.open(&format!("http://{}/?still=yes", day.address)).await;
    browser.submit("#id", "refused").await;
    let text = browser.evaluate("document.body.innerText").await;
    let text = text.as_str().expect("a page with text");
    assert!(text.contains("nickname_refused") && text.contains("<script>"), "{text}");
    browser.close().await;
}
