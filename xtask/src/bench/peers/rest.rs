//! Just enough HTTP for Syncthing's REST interface, over a Unix socket: so that asking it leaves the loopback's
//! counters alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Longer than any answer takes, on a busy machine with a large folder.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to ask again where a connection breaks.
const AGAIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);

pub(super) struct Rest {
    pub(super) socket: PathBuf,
    pub(super) key: String,
}

impl Rest {
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let body = self.ask("GET", path, "")?;
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<()> {
        self.ask("POST", path, &body.to_string()).map(drop)
    }

    /// Asks it to end. It may do so before it answers.
    pub(super) fn shut_down(&self) {
        let _ = self.ask_once("POST", "/rest/system/shutdown", "{}");
    }

    /// Asks until there is an answer: now and then it closes connections that it has just taken.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let deadline = Instant::now() + AGAIN;
        loop {
            match self.ask_once(method, path, body) {
                Err(error) if error.root_cause().is::<std::io::Error>() && Instant::now() < deadline => {
                    std::thread::sleep(STEP);
                }
                answer => return answer.with_context(|| format!("{method} {path}")),
            }
        }
    }

    fn ask_once(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = connect(&self.socket)?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "{status}: {body}");
        Ok(body.to_owned())
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}
