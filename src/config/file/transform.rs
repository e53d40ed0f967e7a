//! The keys of what a route changes, and of what it answers itself.

use http::HeaderName;

use crate::config::shape::{Named, OneOrMany, keys};
use crate::config::values::{
    AnnouncedField, AnswerStatus, Blocks, CorsField, CorsMethod, FixedPath, HeaderText, Origin, RedirectStatus,
    RegexPart, TemplateText,
};

keys! {
    /// What becomes of the target of a request before it is forwarded.
    Rewrite {
        /// Whole segments that are taken from the beginning of the path, such as `/v1`; X-Forwarded-Prefix tells the upstream.
        strip_prefix: FixedPath,
        /// Segments that are put in front of the path, such as `/api`; after `strip_prefix`.
        add_prefix: FixedPath,
        /// Another path, such as `/v2/{path.rest}`.
        path: TemplateText,
        /// Replaces what a regular expression finds in the path.
        regex: RegexRewrite,
        /// What is changed in the query.
        query: QueryRewrite,
        /// The Host for the upstream: `upstream` (that of the server which gets the request), or a name such as `api.internal`. Default: the client's.
        host: String,
    }
}

keys! {
    /// Replaces what a regular expression finds in the path, everywhere in it.
    RegexRewrite {
        /// Looked for in the canonical path; `^` and `$` are its ends. Required.
        r#match: RegexPart,
        /// What stands there instead; `$1` and `$name` are groups. Required.
        replace: String,
    }
}

keys! {
    /// What is changed in the query.
    QueryRewrite {
        /// Parameters that get this one value, with variables.
        set: Named<TemplateText>,
        /// Parameters that are taken away.
        remove: OneOrMany<String>,
    }
}

keys! {
    /// What is changed in fields: first `remove`, then `set`, `add` and `default`. Values may hold variables.
    FieldEdits {
        /// Fields that get this one value, whatever was there. A value that comes out empty takes the field away.
        set: Named<TemplateText>,
        /// Fields that get one more line.
        add: Named<TemplateText>,
        /// Fields that get this value when they are not there.
        default: Named<TemplateText>,
        /// Fields that are taken away.
        remove: OneOrMany<HeaderName>,
    }
}

keys! {
    /// Sends requests elsewhere.
    Redirect {
        /// Where: `https://host/…`, `/…`, or `https://{host}{path}`, with variables. Required.
        to: TemplateText,
        /// 301, 302, 303, 307 or 308. Default: 308.
        status: RedirectStatus,
    }
    instead of a value: "write `{ to: \"https://example.com/{path.rest}\" }`"
}

keys! {
    /// An answer without an upstream.
    Respond {
        /// 200 to 599. Default: 200.
        status: AnswerStatus,
        /// Its body. Default: none.
        body: String,
        /// The body's media type. Default: text/plain; charset=utf-8.
        content_type: HeaderText,
        /// Its other fields, with variables.
        headers: Named<TemplateText>,
    }
    instead of a value: "write `{ status: 200, body: ok }`"
}

keys! {
    /// Who may ask at all, by the client's address.
    Access {
        /// Nobody but these: addresses, address blocks or `private`. Default: everybody.
        allow: OneOrMany<Blocks>,
        /// Never these; comes before `allow`. Default: nobody.
        deny: OneOrMany<Blocks>,
    }
    instead of a value: "write `{ deny: [198.51.100.0/24] }` or `{ allow: [private] }`"
}

keys! {
    /// Which pages of other origins may read the answers.
    Cors {
        /// Whose pages: `https://app.example.com`, `https://*.example.com`, `null`, or `*` for all. Required.
        origins: OneOrMany<Origin>,
        /// With which methods. Default: GET, HEAD and POST.
        methods: OneOrMany<CorsMethod>,
        /// With which request fields, beside those that need no leave; `*`: any.
        headers: OneOrMany<AnnouncedField>,
        /// Which fields of answers they may read; those of limits are always among them.
        expose: OneOrMany<CorsField>,
        /// Whether cookies and the like may come along. Default: false.
        credentials: bool,
        /// How long a browser need not ask again. Default: 10m.
        max_age: std::time::Duration,
    }
    instead of a value: "write `{ origins: [https://app.example.com] }`"
}
