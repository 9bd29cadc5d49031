// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Both ends of the TCP transfer test: the guest runs [`transfer`], the host side [`serve`].
//!
//! ```text
//! guest -> host   Plan: magic, seed up, seed down, bytes down (32 bytes, little-endian)
//! guest -> host   the bytes up, then half-close
//! host  -> guest  how many bytes came, their SHA-256 (8 + 32 bytes)
//! host  -> guest  the bytes down, then close
//! ```
//! Either end knows the seeds, so each checks what it got by itself, and the guest also learns what the host got.
//!
//! A guest of another system may fetch the same bytes by HTTP instead: `GET /SEED/BYTES`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::pattern;

const MAGIC: u64 = u64::from_le_bytes(*b"cvmmpeer");
const CHUNK: usize = 64 * 1024;

/// What the guest wants to be moved.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Seed of the bytes from guest to host.
    pub seed_up: u64,
    /// How many bytes from guest to host.
    pub bytes_up: u64,
    /// Seed of the bytes from host to guest.
    pub seed_down: u64,
    /// How many bytes from host to guest.
    pub bytes_down: u64,
}

/// A number of bytes and their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// What the guest knows after a transfer.
#[derive(Debug)]
pub struct Transfer {
    /// What the guest sent.
    pub sent: Summary,
    /// What the host says it received.
    pub peer_received: Summary,
    /// What the guest received.
    pub received: Summary,
    /// What the guest should have received.
    pub expected: Summary,
    /// Time for the way up, until the host's answer.
    pub time_up: Duration,
    /// Time for the way down.
    pub time_down: Duration,
}

/// The host's end of one connection. Returns what came from the guest.
pub fn serve(mut stream: TcpStream) -> io::Result<Summary> {
    let mut plan = [0; 32];
    stream.read_exact(&mut plan)?;
    if plan.starts_with(b"GET ") {
        return answer(stream, &plan);
    }
    let [magic, _seed_up, seed_down, bytes_down] = unpack(&plan);
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not guest-init's transfer test"));
    }
    let received = receive(&mut stream)?;
    stream.write_all(&received.bytes.to_le_bytes())?;
    stream.write_all(&received.sha256)?;
    send(&mut stream, seed_down, bytes_down)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(received)
}

/// Answers an HTTP request that begins with `head` (RFC 9112); the connection ends with the answer.
fn answer(mut stream: TcpStream, head: &[u8]) -> io::Result<Summary> {
    let mut request = head.to_vec();
    while !request.ends_with(b"\r\n\r\n") && request.len() < CHUNK {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.split(' ').nth(1).and_then(|path| path.strip_prefix('/'));
    let wanted = path.and_then(|path| path.split_once('/'));
    match wanted.and_then(|(seed, bytes)| Some((seed.parse().ok()?, bytes.parse().ok()?))) {
        Some((seed, bytes)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n")?;
            send(&mut stream, seed, bytes)?;
        }
        None => {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(Summary { bytes: 0, sha256: Sha256::digest([]).into() })
}

/// The guest's end. Judges nothing: the caller compares the summaries. `turned` is called when all is sent, and hardly
/// anything was received yet.
pub fn transfer(mut stream: TcpStream, plan: &Plan, turned: impl FnOnce()) -> io::Result<Transfer> {
    let started = Instant::now();
    stream.write_all(&pack([MAGIC, plan.seed_up, plan.seed_down, plan.bytes_down]))?;
    let sent = send(&mut stream, plan.seed_up, plan.bytes_up)?;
    stream.shutdown(Shutdown::Write)?;
    let (mut bytes, mut sha256) = ([0; 8], [0; 32]);
    stream.read_exact(&mut bytes)?;
    stream.read_exact(&mut sha256)?;
    let time_up = started.elapsed();
    turned();

    let started = Instant::now();
    let received = receive(&mut stream)?;
    Ok(Transfer {
        sent,
        peer_received: Summary { bytes: u64::from_le_bytes(bytes), sha256 },
        received,
        expected: send(&mut io::sink(), plan.seed_down, plan.bytes_down)?,
        time_up,
        time_down: started.elapsed(),
    })
}

fn send(to: &mut impl Write, seed: u64, bytes: u64) -> io::Result<Summary> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < bytes {
        let length = usize::try_from(bytes - done).map_or(CHUNK, |left| left.min(CHUNK));
        pattern::fill(seed, done, &mut chunk[..length]);
        hash.update(&chunk[..length]);
        to.write_all(&chunk[..length])?;
        done += length as u64;
    }
    Ok(Summary { bytes, sha256: hash.finalize().into() })
}

fn receive(from: &mut impl Read) -> io::Result<Summary> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(Summary { bytes, sha256: hash.finalize().into() }),
            length => {
                hash.update(&chunk[..length]);
                bytes += length as u64;
            }
        }
    }
}

fn pack(numbers: [u64; 4]) -> [u8; 32] {
    let mut packed = [0; 32];
    for (place, number) in packed.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    packed
}

fn unpack(packed: &[u8; 32]) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (number, place) in numbers.iter_mut().zip(packed.chunks_exact(8)) {
        *number = place.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_same_bytes_come_by_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for (path, status, expected) in
            [("/7/100001", "200 OK", pattern::bytes(7, 100_001)), ("/other", "404 Not Found", vec![])]
        {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
            serve(listener.accept().unwrap().0).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
            assert!(answer.starts_with(format!("HTTP/1.1 {status}\r\n").as_bytes()), "{path}");
            assert!(answer[end..] == expected, "{path}");
        }
    }

    #[test]
    fn both_ends_agree_on_what_was_moved() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0).unwrap());
        let plan = Plan { seed_up: 1, bytes_up: 200_001, seed_down: 2, bytes_down: 70_003 };
        let transfer = transfer(TcpStream::connect(address).unwrap(), &plan, || ()).unwrap();
        let received = server.join().unwrap();
        assert_eq!(received, transfer.sent);
        assert_eq!(transfer.peer_received, transfer.sent);
        assert_eq!(transfer.received, transfer.expected);
        assert_eq!(received.sha256[..], Sha256::digest(pattern::bytes(1, 200_001))[..]);
        assert_eq!(transfer.received.sha256[..], Sha256::digest(pattern::bytes(2, 70_003))[..]);
    }
}
