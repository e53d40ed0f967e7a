//! The page for people: three files and an icon, without anything from elsewhere. They hold no secret, so they
//! are for everybody; what the page shows comes from the API, which asks for the token.

use super::answer::Answer;

/// The file at a path.
pub(super) fn file(path: &str) -> Option<Answer> {
    Some(match path {
        "/" | "/index.html" => Answer::file("text/html; charset=utf-8", include_str!("dashboard/index.html")),
        "/app.js" => Answer::file("text/javascript; charset=utf-8", include_str!("dashboard/app.js")),
        "/app.css" => Answer::file("text/css; charset=utf-8", include_str!("dashboard/app.css")),
        "/icon.svg" => Answer::file("image/svg+xml", include_str!("dashboard/icon.svg")),
        _ => return None,
    })
}
