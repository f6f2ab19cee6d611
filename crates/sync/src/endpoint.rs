//! Binding iroh: the device's key, the port, relays, address lookup, and who may connect at all. Never speaks
//! the protocol.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use alike_core::message::{ALPN, PAIR_ALPN};
use iroh::address_lookup::{DnsAddressLookup, PkarrPublisher, PkarrResolver};
use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, QuicTransportConfig, presets};
use iroh::{Endpoint, EndpointId, RelayMode, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use crate::config::{Config, Discovery, Relay};
use crate::error::Error;

/// Closing code: the connection is no longer wanted (shutdown, replaced by a newer one).
pub(crate) const CLOSE_DONE: u32 = 0;
/// Closing code: the other side broke the protocol.
pub(crate) const CLOSE_PROTOCOL: u32 = 2;
/// Closing code: not a paired device, or no ticket is open.
pub(crate) const CLOSE_REFUSED: u32 = 403;

/// A connection that stays silent this long is dead. A live peer answers iroh's keep-alives, which go every 5 s: more of them
/// would wake idle machines for nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The file that remembers the port, so that addresses known to peers stay good across restarts.
const PORT_FILE: &str = "port";
const KEY_FILE: &str = "device.key";

/// Who may connect: read by the handshake hook, written by the engine.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Paired devices.
    pub(crate) devices: HashSet<EndpointId>,
    /// Is any ticket open? Only then may strangers try to pair.
    pub(crate) pairing: bool,
}

#[derive(Debug)]
struct Gate(Arc<RwLock<Admission>>);

impl EndpointHooks for Gate {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        if connection.side().is_client() {
            return AfterHandshakeOutcome::accept();
        }
        let admission = self.0.read().expect("the admission lock is never poisoned");
        let welcome = match connection.alpn() {
            alpn if alpn == ALPN => admission.devices.contains(&connection.remote_id()),
            // A device that is known may come back with the ticket that made it so: its answer may have been lost.
            alpn if alpn == PAIR_ALPN => {
                admission.pairing || admission.devices.contains(&connection.remote_id())
            }
            _ => false,
        };
        if welcome {
            AfterHandshakeOutcome::accept()
        } else {
            AfterHandshakeOutcome::Reject {
                error_code: CLOSE_REFUSED.into(),
                reason: b"not paired".to_vec(),
            }
        }
    }
}

/// Reads the device's secret key, or makes one. Refuses a file that others may read.
pub(crate) fn device_key(home: &Path) -> Result<SecretKey, Error> {
    use std::io::{Read, Write};
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let path = home.join(KEY_FILE);
    let fail = |reason: String| Error::Home {
        path: path.clone(),
        reason,
    };
    match std::fs::File::open(&path) {
        Ok(mut file) => {
            let mode = file
                .metadata()
                .map_err(|e| fail(e.to_string()))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                return Err(fail(
                    "the device's key can be read by others; run `chmod 600` on it".into(),
                ));
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
            let key = alike_core::digest::Digest::from_hex(text.trim()).ok_or_else(|| {
                fail("the device's key is damaged; restore it or remove it to become a new device".into())
            })?;
            Ok(SecretKey::from_bytes(&key.0))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = SecretKey::generate();
            let text = alike_core::digest::Digest(key.to_bytes()).to_hex() + "\n";
            let temp = home.join("device.key.new");
            let _ = std::fs::remove_file(&temp);
            let mut options = std::fs::OpenOptions::new();
            let written = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temp)
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    std::fs::rename(&temp, &path)
                });
            written.map_err(|e| match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    fail(format!("{e}; free some space"))
                }
                _ => fail(e.to_string()),
            })?;
            Ok(key)
        }
        Err(e) => Err(fail(e.to_string())),
    }
}

/// Binds the endpoint. Waits for no relay and no lookup service.
pub(crate) async fn bind(
    config: &Config,
    key: SecretKey,
    admission: Arc<RwLock<Admission>>,
) -> Result<Endpoint, Error> {
    let kept = kept_port(&config.home);
    let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let wanted = config.bind.unwrap_or(any);
    // A port that was asked for is an order; the one kept from last time only a wish.
    let mut tries = vec![wanted];
    if let (0, Some(port)) = (wanted.port(), kept) {
        tries.insert(0, SocketAddr::new(wanted.ip(), port));
    }
    let mut last = None;
    for addr in tries {
        match bind_at(config, key.clone(), admission.clone(), addr).await {
            Ok(endpoint) => {
                let bound = endpoint.bound_sockets();
                if let Some(socket) = bound.iter().find(|s| s.is_ipv4() == addr.is_ipv4()) {
                    // Only a convenience: peers find us by lookup or by our dialling them otherwise.
                    let _ = std::fs::write(config.home.join(PORT_FILE), format!("{}\n", socket.port()));
                }
                return Ok(endpoint);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("at least one address was tried"))
}

fn kept_port(home: &Path) -> Option<u16> {
    std::fs::read_to_string(home.join(PORT_FILE))
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|&port| port != 0)
}

async fn bind_at(
    config: &Config,
    key: SecretKey,
    admission: Arc<RwLock<Admission>>,
    addr: SocketAddr,
) -> Result<Endpoint, Error> {
    let transport = QuicTransportConfig::builder()
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("fifteen seconds fit")))
        .build();
    let fail = |reason: String| Error::Bind { addr, reason };
    // A taken port is told best by the system itself; iroh would go on without that family.
    std::net::UdpSocket::bind(addr).map_err(|e| fail(e.to_string()))?;
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(vec![ALPN.to_vec(), PAIR_ALPN.to_vec()])
        .transport_config(transport)
        .hooks(Gate(admission));
    if config.bind.is_some() {
        // An address was chosen: listen there and nowhere else.
        builder = builder.clear_ip_transports();
    }
    builder = builder.bind_addr(addr).map_err(|e| fail(e.to_string()))?;
    builder = match &config.relay {
        Relay::Disabled => builder.relay_mode(RelayMode::Disabled),
        Relay::Default => builder.relay_mode(RelayMode::Default),
        Relay::Url(url) => {
            let url = url
                .parse()
                .map_err(|e| Error::Network(format!("relay address {url}: {e}")))?;
            builder.relay_mode(RelayMode::custom([url]))
        }
    };
    builder = match config.discovery {
        Discovery::None => builder,
        Discovery::Local => builder.address_lookup(MdnsAddressLookup::builder()),
        Discovery::Default => builder
            .address_lookup(PkarrPublisher::n0_dns())
            .address_lookup(PkarrResolver::n0_dns())
            .address_lookup(DnsAddressLookup::n0_dns())
            .address_lookup(MdnsAddressLookup::builder()),
    };
    if config.relay == Relay::Disabled && config.discovery == Discovery::None {
        builder = builder.portmapper_config(iroh::endpoint::PortmapperConfig::Disabled);
    }
    builder.bind().await.map_err(|e| fail(e.to_string()))
}
