//! The page in a real browser: two users on two servers.

use std::path::Path;
use std::process::Command;

use mmate_test_support::ServiceProcess;

use super::scene::Scene;

/// A port that is free now: the servers must know each other's addresses before they start.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// S1, S12: they talk, one server dies, its user goes on at the other.
#[test]
fn two_users_talk_on_two_servers_in_a_browser() {
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    assert!(
        Path::new(&browser).exists(),
        "{browser} is missing: `apt-get install chromium` installs it, and `scripts/test` does so by itself; \
         CHROMIUM says where another one is"
    );
    let scene = Scene::new(&["--lease", "2000"]);
    let addresses = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let urls = addresses.each_ref().map(|address| format!("http://{address}")).join(",");
    let server = |name: &str, address: &str| -> ServiceProcess {
        scene.server_with(name, &["--listen", address, "--servers", &urls])
    };
    let (one, two) = (server("one", &addresses[0]), server("two", &addresses[1]));
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sockets/clients");
    let pictures = std::env::var_os("MMATE_TEST_PICTURES");
    let pictures = pictures.map_or(scene.folder.path().to_owned(), Into::into);
    let mut script = Command::new("node");
    script.env("CHROMIUM", &browser);
    script.arg(clients.join("browser.mjs")).args([one.address(), two.address()]);
    script.arg(two.id().to_string()).arg(pictures);
    let output = script.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{told}");
    assert!(said.ends_with("all is well\n"), "{said}\n{told}");
}
