//! `tollgate top`: a running proxy at a glance, from the stream that the dashboard reads.

mod screen;
mod tables;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use http_body_util::BodyExt;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::sync::mpsc;

use super::admin::{Client, Running};
use super::{Format, Global};
use screen::Screen;

/// Watch a running proxy: traffic, limits, keys, servers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate top                          the proxy whose configuration is found
  tollgate top --admin http://10.0.0.7:9901
  tollgate top --once                   print tables and end
  tollgate top --once --format json     the overview of the admin API

Keys: q or Esc ends it, p pauses it, arrows and PgUp/PgDn scroll.")]
pub struct Args {
    /// Print the state once and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    running: Running,
    /// How to print, with --once
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT", requires = "once")]
    format: Format,
}

/// Longest event of the stream, bytes.
const LONGEST: usize = 16 << 20;
/// Between two attempts to reach the proxy again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the thread that reads keys looks whether it is over.
const GLANCE: Duration = Duration::from_millis(200);

/// Shows it until somebody has seen enough.
///
/// # Errors
/// When the proxy cannot be reached or refuses, or there is no terminal to draw on.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::of(&args.running, global)?;
    if args.once {
        let overview = client.ask(&Method::GET, "overview", None)?;
        super::check::print(&match args.format {
            Format::Text => tables::text(&overview),
            Format::Json => format!("{overview:#}\n"),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    // Whatever is wrong with the proxy is told before the screen is taken.
    client.ask(&Method::GET, "overview", None)?;
    let mut terminal = ratatui::try_init().context("there is no terminal to draw on; try --once")?;
    let watched = client.run(watch(&client, &mut terminal));
    ratatui::restore();
    watched.map(|()| ExitCode::SUCCESS)
}

/// Draws what the stream tells, until a key ends it.
async fn watch(client: &Client, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    let (keys, mut pressed) = mpsc::channel(16);
    std::thread::spawn(move || read_keys(&keys));
    let (overviews, mut told) = mpsc::channel(4);
    let mut screen = Screen::default();
    let reading = read_stream(client, overviews);
    tokio::pin!(reading);
    loop {
        tokio::select! {
            () = &mut reading => return Ok(()),
            overview = told.recv() => match overview {
                Some(Ok(overview)) => screen.tell(overview),
                Some(Err(error)) => screen.lose(&error),
                None => return Ok(()),
            },
            event = pressed.recv() => match event {
                None => return Ok(()),
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    code => screen.press(code),
                },
                Some(_) => {}
            },
        }
        terminal.draw(|frame| screen.draw(frame))?;
    }
}

/// Reads the terminal until nobody listens.
fn read_keys(keys: &mpsc::Sender<Event>) {
    while !keys.is_closed() {
        match event::poll(GLANCE) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if keys.blocking_send(event).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Reads the stream, again and again, until nobody listens.
async fn read_stream(client: &Client, overviews: mpsc::Sender<Result<Value, String>>) {
    loop {
        let Err(error) = read_once(client, &overviews).await else { return };
        if overviews.send(Err(format!("{error:#}"))).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read_once(client: &Client, overviews: &mpsc::Sender<Result<Value, String>>) -> anyhow::Result<()> {
    let mut body = client.send(&Method::GET, "stream", None).await?.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the stream broke off")?.into_data() else { continue };
        text.extend_from_slice(&data);
        anyhow::ensure!(text.len() <= LONGEST, "an event is longer than any that the proxy sends");
        while let Some(end) = text.windows(2).position(|end| end == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let Some(data) = event.strip_prefix(b"data: ") else { continue };
            let overview = serde_json::from_slice(data).context("the stream is not what was expected")?;
            if overviews.send(Ok(overview)).await.is_err() {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the proxy ended the stream")
}
