use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(1);

/// What the server on that port says to a command; a list comes as lines.
pub(super) fn ask(port: u16, command: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    read(&mut BufReader::new(stream))
}

/// <https://redis.io/docs/latest/develop/reference/protocol-spec/>
fn read(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, text)) = line.split_at_checked(1) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = || text.parse::<i64>().map_err(io::Error::other);
    match kind {
        "+" | ":" => Ok(text.to_owned()),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(String::new()) };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            String::from_utf8(bytes).map_err(io::Error::other)
        }
        "*" => {
            let parts: io::Result<Vec<_>> = (0..number()?).map(|_| read(reader)).collect();
            Ok(parts?.join("\n"))
        }
        _ => Err(io::Error::other(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_each_kind_are_read() {
        let read = |mut bytes: &[u8]| read(&mut bytes);
        assert_eq!(read(b"+PONG\r\n").unwrap(), "PONG");
        assert_eq!(read(b":7\r\n").unwrap(), "7");
        assert_eq!(read(b"$3\r\na\r\n\r\n").unwrap(), "a\r\n");
        assert_eq!(read(b"$-1\r\n").unwrap(), "");
        assert_eq!(read(b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n").unwrap(), "a\n1");
        assert_eq!(read(b"-ERR no\r\n").unwrap_err().to_string(), "-ERR no");
        assert!(read(b"").is_err());
    }
}
