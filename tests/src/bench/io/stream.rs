// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Both ends of a TCP connection that is measured: bytes one way, and nothing done with them.
//!
//! ```text
//! guest -> host   how many bytes the guest sends, how many it wants (16 bytes, little-endian), the former
//! host  -> guest  one byte when all have come, and those that it wants
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The guest's end: how long it took from the first byte to the last.
pub fn transfer(mut stream: TcpStream, sent: u64, wanted: u64) -> io::Result<Duration> {
    let started = Instant::now();
    let mut head = [0; 16];
    head[..8].copy_from_slice(&sent.to_le_bytes());
    head[8..].copy_from_slice(&wanted.to_le_bytes());
    stream.write_all(&head)?;
    send(&mut stream, sent)?;
    stream.read_exact(&mut [0])?;
    receive(&mut stream, wanted)?;
    Ok(started.elapsed())
}

/// The host's end: serves one guest after the other, for ever.
pub fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        // The guest's end tells of a failure.
        let _ = stream.and_then(serve_one);
    }
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    let (mut sent, mut wanted) = ([0; 8], [0; 8]);
    stream.read_exact(&mut sent)?;
    stream.read_exact(&mut wanted)?;
    receive(&mut stream, u64::from_le_bytes(sent))?;
    stream.write_all(&[0])?;
    send(&mut stream, u64::from_le_bytes(wanted))
}

fn send(to: &mut impl Write, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        to.write_all(&ZEROS[..length])?;
        left -= length as u64;
    }
    Ok(())
}

fn receive(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; ZEROS.len()];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match from.read(&mut buffer[..length])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => left -= length as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_either_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener));
        for (sent, wanted) in [(200_001, 0), (0, 70_003), (0, 0)] {
            transfer(TcpStream::connect(address).unwrap(), sent, wanted).unwrap();
        }
    }
}
