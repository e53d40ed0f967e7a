//! The keys of logs, metrics, the admin listener and the end of the process.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::shape::{Named, OneOrMany, Short, keys, words};
use crate::config::values::{Address, OtlpAddress, PlainText, Share};
use crate::limit::policy::PathPattern;
use crate::units::Size;

keys! {
    /// The process log.
    Log {
        /// `error`, `warn`, `info` (default), `debug` or `trace`.
        level: LogLevel,
        /// `auto` (default: pretty on a terminal, JSON otherwise), `pretty` or `json`.
        format: LogFormat,
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Failures.
        Error = "error",
        /// And oddities.
        Warn = "warn",
        /// And changes of state.
        Info = "info",
        /// And details.
        Debug = "debug",
        /// And everything.
        Trace = "trace",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// Pretty on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// For machines.
        Json = "json",
    }
}

keys! {
    /// The access log.
    AccessLog {
        /// `json` (default) or `combined`.
        format: AccessLogFormat,
        /// Only these requests (and the sampled share of the others): `limited`, `errors`.
        only: OneOrMany<AccessLogClass>,
        /// Share of the other requests that is logged, such as `1%`. Default: 100%, or 0% with `only`.
        sample: Share,
        /// A file that lines are appended to; USR1 has it opened anew. Default: standard output.
        file: PathBuf,
    }
}

words! {
    /// How access log lines look.
    AccessLogFormat {
        /// One JSON object per line.
        Json = "json",
        /// The combined format.
        Combined = "combined",
    }
}

words! {
    /// Which requests are logged.
    AccessLogClass {
        /// Denied by a limit.
        Limited = "limited",
        /// Failed.
        Errors = "errors",
    }
}

keys! {
    /// Traces.
    Tracing {
        /// Where spans go, by OTLP over HTTP: an address such as `http://otel-collector:4318`, or keys. Required.
        otlp: Short<OtlpAddress, Otlp>,
        /// Share of the requests that are traced, such as `5%`, where no trusted client has decided. Default: 100%.
        sample: Share,
        /// What this proxy is called in traces. Default: tollgate.
        service_name: PlainText,
    }
}

keys! {
    /// An OpenTelemetry collector, or who else takes OTLP over HTTP.
    Otlp {
        /// Its address; without a path, `/v1/traces` is asked. Required.
        endpoint: OtlpAddress,
        /// Fields sent with every batch, such as an API key.
        headers: Named<PlainText>,
        /// A file that holds a token, sent as `Authorization: Bearer …`.
        token_file: PathBuf,
        /// PEM file of the authorities whose certificates are believed. Default: the system's.
        ca: PathBuf,
        /// How long a batch may take. Default: 10s.
        timeout: Duration,
    }
}

keys! {
    /// Prometheus metrics.
    Metrics {
        /// Their path on the admin listener. Default: /metrics.
        path: PathPattern,
        /// Who may read them where the admin listener has a token: `required` (default: its holder), or `none` (everybody).
        token: MetricsToken,
    }
}

words! {
    /// Who may read the metrics.
    MetricsToken {
        /// Whoever has the admin listener's token.
        Required = "required",
        /// Everybody who reaches the admin listener.
        None = "none",
    }
}

keys! {
    /// The admin listener.
    Admin {
        /// Its address; anything but loopback needs a token. Default: 127.0.0.1:9901.
        address: Address,
        /// A file that holds the bearer token. Required on another address than loopback.
        token_file: PathBuf,
        /// `false`: no page for people at `/`. Default: true.
        dashboard: bool,
    }
}

keys! {
    /// How much memory the process may use.
    Memory {
        /// From 90 % of this on new connections are closed and new requests get 503, until it is below 85 %. Default: no bound.
        max: Size,
    }
}

keys! {
    /// How the process ends.
    Shutdown {
        /// From the signal to the closing of the listeners, not ready any more. Default: 0s.
        delay: Duration,
        /// From then until the remaining connections are cut. Default: 30s.
        grace: Duration,
    }
}
