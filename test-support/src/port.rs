use std::{
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use crate::error::StartFailure;

/// A free TCP port on loopback, kept for one server over its restarts.
///
/// While the value lives no other run of these tests chooses the same port. The server itself may bind it at any time.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// What other runs see, and what the kernel takes back however this process ends: servers here speak TCP only.
    _reservation: UdpSocket,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// If no port is free, with the operating system's last refusal.
    pub fn reserve() -> io::Result<Self> {
        let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..200 {
            match Self::try_reserve(fastrand::u16(RANGE)) {
                Ok(port) => return Ok(port),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    pub(crate) fn reserve_for_server() -> Result<Self, StartFailure> {
        Self::reserve().map_err(StartFailure::io("find a free port"))
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Whether nobody listens on it.
    pub(crate) fn is_free(&self) -> bool {
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.number)).is_ok()
    }

    fn try_reserve(number: u16) -> io::Result<Self> {
        let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
        let port = Self { number, _reservation: reservation };
        if port.is_free() { Ok(port) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }
}

/// Below the ports that Linux gives to outgoing connections (32768–60999), so that none of those is in the way when a
/// server comes back on its port.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice_and_can_be_listened_on() {
        let port = Port::reserve().unwrap();
        assert!(Port::try_reserve(port.number()).is_err());
        assert!(port.is_free());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        assert!(!port.is_free());
        drop(listener);
        let number = port.number();
        drop(port);
        assert!(Port::try_reserve(number).is_ok());
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_reserved() {
        let port = Port::reserve().unwrap();
        let number = port.number();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        drop(port);
        assert!(Port::try_reserve(number).is_err());
    }
}
