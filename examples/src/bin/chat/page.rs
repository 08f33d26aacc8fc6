//! The page in the browser.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

pub(crate) fn routes() -> Router {
    let files = [
        ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
        ("/chat.css", "text/css; charset=utf-8", include_str!("page/chat.css")),
        ("/chat.js", "text/javascript; charset=utf-8", include_str!("page/chat.js")),
        ("/connection.js", "text/javascript; charset=utf-8", include_str!("page/connection.js")),
    ];
    files.into_iter().fold(Router::new(), |routes, (path, kind, content)| {
        routes.route(path, get(async move || ([(CONTENT_TYPE, kind)], content)))
    })
}
