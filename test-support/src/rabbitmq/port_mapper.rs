use std::net::{Ipv4Addr, TcpStream};

use rustix::process::Signal;

use super::SERVER;
use crate::{
    error::{StartError, StartFailure},
    folder::Folder,
    port::Port,
    process::Launch,
    program::Program,
    server::{Plan, Server, with_fresh_ports},
};

/// Starts Erlang's port mapper. A node starts one by itself if there is none, but that one would outlive it.
pub(super) fn start() -> Result<Server, StartError> {
    with_fresh_ports(SERVER, plan)
}

const PROGRAM: Program = Program { name: "epmd", package: "erlang-base", folders: &[] };

fn plan() -> Result<Plan, StartFailure> {
    let program = PROGRAM.find()?;
    let folder = Folder::new("epmd", None)?;
    let port = Port::reserve_for_server()?;
    let number = port.number().to_string();
    Ok(Plan {
        // Without `-daemon` it stays in the group that it is minded by.
        launch: Launch::new(program, &folder).arguments([
            "-port",
            &number,
            "-address",
            "127.0.0.1",
        ]),
        prepare: None,
        answers: |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        stop: Signal::TERM,
        folder,
        ports: vec![port],
    })
}
