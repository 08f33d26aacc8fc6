use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(90);

/// A process of a service under test, which says its address in its first line (`http://127.0.0.1:8080/…`) and is asked over
/// HTTP. It is killed when this is dropped; if the test fails, its log is shown.
#[derive(Debug)]
pub struct ServiceProcess {
    child: Child,
    address: String,
    log: PathBuf,
}

/// An answer over HTTP.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl ServiceProcess {
    /// Starts it under a name, with its log in the folder. One that is started again under the same name goes on with the log.
    ///
    /// # Panics
    /// When it does not start, with its log.
    #[must_use]
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("open the log");
        let child = command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(file).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("start {name}: {error}"));
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it is text");
        let mut process = Self { child, address: String::new(), log };
        let address = line.split(['/', ' ', '\n']).nth(2);
        address.unwrap_or_else(|| panic!("{name} did not start")).clone_into(&mut process.address);
        process
    }

    /// Where it listens, such as `127.0.0.1:8080`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged, also before it was started again.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.end();
    }

    /// Ends it as an orchestrator does; the exit code.
    #[must_use]
    pub fn terminate(mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        self.child.wait().ok()?.code()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a request: its first line without the version, such as `GET /health`, headers of its own, and a body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let mut head = format!("{request} HTTP/1.0\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Answer { status: status.ok_or(io::ErrorKind::InvalidData)?, body: body.to_owned() })
    }

    /// Asks for a page.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn page(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], "").expect("an answer")
    }

    /// Posts JSON.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn post(&self, path: &str, json: &str) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask(&format!("POST {path}"), &headers, json).expect("an answer")
    }

    /// A number on the page of metrics, added up over other labels; 0 where it is not there.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        let page = self.page("/metrics").body;
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("== {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Waits until it is so, for a minute and a half at most.
///
/// # Panics
/// When that time is over.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
