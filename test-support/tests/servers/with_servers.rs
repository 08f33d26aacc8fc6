use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::left_behind::{processes, until};

#[test]
fn the_command_gets_every_address_and_its_exit_code_is_returned() {
    let run = Run::new();
    let script = "env | grep ^MMATE_TEST_ | sort; exit 7";
    let output = run.output(&["--", "sh", "-c", script]);
    let variables = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = variables.lines().collect();
    assert_eq!(lines.len(), 4, "{variables}");
    let expected = [
        "MMATE_TEST_AMQP_URL=amqp://guest:guest@127.0.0.1:",
        "MMATE_TEST_MARIADB_URL=mysql://root@127.0.0.1:",
        "MMATE_TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:",
        "MMATE_TEST_REDIS_URL=redis://127.0.0.1:",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(output.status.code(), Some(7));
    run.assert_nothing_is_left();
}

#[test]
fn a_command_that_succeeds_or_dies_of_a_signal_is_told_apart() {
    let run = Run::new();
    assert_eq!(run.output(&["--only", "redis", "true"]).status.code(), Some(0));
    let output = run.output(&["--only", "redis", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(output.status.code(), Some(128 + 9));
    run.assert_nothing_is_left();
}

#[test]
fn an_address_given_from_outside_is_left_alone() {
    let run = Run::new();
    let output = run
        .program(&["--only", "redis", "sh", "-c", "echo $MMATE_TEST_REDIS_URL; ls $TMPDIR"])
        .env("MMATE_TEST_REDIS_URL", "redis://elsewhere/")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "redis://elsewhere/\n");
}

#[test]
fn a_wrong_call_says_what_is_wrong() {
    let run = Run::new();
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 2, "the command to run is missing"),
        (&["--all", "true"], 2, "unknown option `--all`"),
        (&["--only", "oracle", "true"], 2, "unknown server `oracle`"),
        (&["--only"], 2, "--only needs"),
        (&["--only", "redis", "no-such-command", "x"], 127, "cannot run `no-such-command x`"),
    ];
    for (arguments, code, complaint) in cases {
        let output = run.output(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(complaint), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
    run.assert_nothing_is_left();
}

#[test]
fn a_signal_ends_the_command_and_the_servers() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let run = Run::new();
        let mut child = run.start_and_wait_for_the_command("redis");
        signal_to(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
        run.assert_nothing_is_left();
    }
}

#[test]
fn a_signal_while_the_servers_start_leaves_nothing() {
    let run = Run::new();
    let mut child = run.program(&["true"]).stderr(Stdio::null()).spawn().unwrap();
    until("all folders are there", || run.folders() == 5);
    signal_to(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    run.wait_until_nothing_is_left();
}

#[test]
fn a_kill_leaves_nothing() {
    let run = Run::new();
    let mut child = run.start_and_wait_for_the_command("rabbitmq,redis,postgres,mariadb");
    child.kill().unwrap();
    child.wait().unwrap();
    run.wait_until_nothing_is_left();
}

/// Runs of `with-servers` whose processes and folders can be told from all others.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        // PostgreSQL and MariaDB work in it under accounts of their own.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).unwrap();
        Self { folder }
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_with-servers"));
        program.args(arguments).env("TMPDIR", self.folder.path()).stdin(Stdio::null());
        // This test may itself run with servers.
        for name in ["AMQP", "REDIS", "POSTGRES", "MARIADB"] {
            program.env_remove(format!("MMATE_TEST_{name}_URL"));
        }
        program
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().unwrap()
    }

    fn start_and_wait_for_the_command(&self, servers: &str) -> Child {
        let script = "touch $TMPDIR/ready; sleep 1000";
        let child = self
            .program(&["--only", servers, "--", "sh", "-c", script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = self.folder.path().join("ready");
        until("the command runs", || ready.exists());
        fs::remove_file(ready).unwrap();
        child
    }

    fn folders(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(processes(self.folder.path()), Vec::<String>::new());
        assert_eq!(self.folders(), 0);
    }

    /// A process may take a moment after a kill that is not this process's own.
    fn wait_until_nothing_is_left(&self) {
        until("no process is left", || processes(self.folder.path()).is_empty());
        until("no folder is left", || self.folders() == 0);
    }
}

fn signal_to(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}
