//! A bare iroh stream from one process to another one over loopback: what QUIC itself costs. Nothing is read from a
//! disk, verified or written. `stream send BYTES` prints where it is; `stream receive ADDRESS` takes what it sends.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;

use iroh::endpoint::{PortmapperConfig, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};

const ALPN: &[u8] = b"alike/bench";
/// Written and read in pieces of this many bytes.
const PIECE: usize = 256 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // As many threads as alike's engine has for the network.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", bytes] => runtime.block_on(send(bytes.parse()?)),
        ["receive", address] => runtime.block_on(receive(address)),
        _ => Err("usage: stream send BYTES | stream receive ID@ADDRESS".into()),
    }
}

async fn endpoint() -> Result<Endpoint, Box<dyn Error>> {
    let builder = Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled);
    Ok(builder.bind().await?)
}

async fn send(bytes: u64) -> Result<(), Box<dyn Error>> {
    let endpoint = endpoint().await?;
    let address = endpoint.bound_sockets();
    println!("{}@{}", endpoint.id(), address.first().ok_or("no address")?);
    let connection = endpoint.accept().await.ok_or("nobody came")?.await?;
    let mut stream = connection.open_uni().await?;
    let piece = vec![7; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        stream.write_all(&piece[..length]).await?;
        left -= length as u64;
    }
    stream.finish()?;
    connection.closed().await;
    endpoint.close().await;
    Ok(())
}

async fn receive(address: &str) -> Result<(), Box<dyn Error>> {
    let (id, address) = address.split_once('@').ok_or("ID@ADDRESS")?;
    let (id, address): (EndpointId, SocketAddr) = (id.parse()?, address.parse()?);
    let endpoint = endpoint().await?;
    let connection = endpoint
        .connect(EndpointAddr::new(id).with_ip_addr(address), ALPN)
        .await?;
    let mut stream = connection.accept_uni().await?;
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(PIECE).await? {
        bytes += chunk.len() as u64;
    }
    connection.close(0_u32.into(), b"done");
    endpoint.close().await;
    println!("{bytes}");
    Ok(())
}
