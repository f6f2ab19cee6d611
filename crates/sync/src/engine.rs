//! The engine: one loop over one closed set of events, owner of everything that changes while it runs:
//! folders, devices, connections, sessions, waiting requests. It decides little itself: `core` does.

mod collect;
mod conflicts;
mod devices;
mod folders;
mod hold;
mod pair;
mod past;
mod report;
mod requests;
mod restore;
mod sessions;
mod socket;
mod verify;
mod waits;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use alike_core::ids::FolderId;
use alike_core::message::{ALPN, Hello, PairReply, PairRequest};
use alike_store::{FolderKey, Renewal, Store, StoreError};
use iroh::endpoint::{Connection, SendStream};
use iroh::{Endpoint, EndpointId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::claims::Signer;
use crate::config::Config;
use crate::control::Request;
use crate::endpoint::{self, Admission};
use crate::error::Error;
use crate::failpoint::point;
use crate::memory;
use crate::pairing::{self, PairError};
use crate::peer::{self, PeerEvent};
use crate::serve::Served;

use devices::Device;
use folders::Slot;
use report::Journal;
use socket::Responder;
use waits::Waiter;

/// Events waiting for the loop; whoever sends waits when it is full.
const QUEUE: usize = 256;
/// Closing may take this long; a peer that is gone is not waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nothing happened for so long: what was freed is not needed again soon.
const REST: Duration = Duration::from_secs(3);

/// Pause before a database that failed is opened again.
const REOPEN: Duration = Duration::from_secs(5);

/// How the engine is run.
#[derive(Debug)]
pub struct Options {
    /// Fires when the engine shall end.
    pub shutdown: oneshot::Receiver<()>,
    /// Is fired once the control socket answers.
    pub ready: Option<oneshot::Sender<()>>,
}

/// Everything that happens to the engine.
enum Event {
    /// A command asks.
    Request(Request, Responder),
    /// A connection came, spoke or went.
    Peer(PeerEvent),
    /// Dialling a device ended.
    Dialled {
        device: EndpointId,
        connection: Option<Connection>,
    },
    /// A paired device dialled us.
    Incoming(Connection),
    /// A stranger wants to use a ticket.
    PairAsked {
        connection: Connection,
        request: PairRequest,
        send: SendStream,
    },
    /// Our own use of a ticket ended.
    Redeemed {
        asked: Box<pair::Asked>,
        result: Result<PairReply, PairError>,
    },
    /// A folder's view or activity changed.
    FolderChanged(FolderKey),
    /// It is time to let go of what nobody keeps.
    Collect(crate::collect::Mode),
    /// It is time to read a little again.
    Scrub,
    /// A person answered what the folder held.
    Answered(FolderKey),
    /// What a peer said of a folder is not in doubt any more: it counts now.
    Settled {
        device: EndpointId,
        link: usize,
        folder: FolderId,
    },
    /// The pull of a peer's state ended.
    PullEnded {
        folder: FolderKey,
        device: EndpointId,
        merged: bool,
    },
    /// Everything saved before a wait began is committed.
    Flushed { wait: u64 },
    /// The same, for a wait of a peer's.
    FlushedFor {
        folder: FolderKey,
        device: EndpointId,
        wait: u64,
    },
}

/// The engine's state.
struct Engine {
    config: Config,
    store: Arc<Store>,
    signer: Signer,
    endpoint: Endpoint,
    admission: Arc<RwLock<Admission>>,
    served: Arc<Served>,
    hello: Hello,
    events: mpsc::Sender<Event>,
    peer_events: mpsc::Sender<PeerEvent>,
    folders: BTreeMap<FolderKey, Slot>,
    devices: HashMap<EndpointId, Device>,
    waits: Vec<Waiter>,
    next_wait: u64,
    journal: Journal,
    verifying: verify::Verifying,
    /// Who is told when all has ended.
    stopping: Option<Responder>,
    /// The database failed and has to be opened again.
    reopen: bool,
    /// Held by whoever collects.
    collecting: Arc<Mutex<()>>,
}

/// How a run of the engine ended.
enum Ending {
    /// It was told to.
    Stopped,
    /// The database's medium failed: it may be better by now.
    Reopen,
}

/// Runs the engine until it is told to stop; again and again, if the database has to be opened again.
pub async fn run(config: Config, options: Options) -> Result<(), Error> {
    let Options { shutdown, mut ready } = options;
    memory::keep();
    // A dropped sender means that nobody will ever ask: then this never ends.
    let shutdown = async {
        if shutdown.await.is_err() {
            std::future::pending::<()>().await
        }
    };
    tokio::pin!(shutdown);
    let mut started = false;
    loop {
        match run_once(config.clone(), shutdown.as_mut(), &mut ready).await {
            Ok(Ending::Stopped) => return Ok(()),
            Ok(Ending::Reopen) => started = true,
            Err(error) if !started => return Err(error),
            Err(error) => tracing::error!("starting again: {error}"),
        }
        tracing::warn!("the database is opened again in {} s", REOPEN.as_secs());
        tokio::select! {
            () = shutdown.as_mut() => return Ok(()),
            () = tokio::time::sleep(REOPEN) => {}
        }
    }
}

/// One run, from opening the database to closing it.
async fn run_once(
    config: Config,
    mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>,
    ready: &mut Option<oneshot::Sender<()>>,
) -> Result<Ending, Error> {
    let home = config.home.clone();
    let open = tokio::task::spawn_blocking(move || Store::open(&home));
    let store = match open.await.map_err(|e| Error::Network(e.to_string()))? {
        Ok(store) => Arc::new(store),
        Err(StoreError::InUse { .. }) => return Err(Error::InUse(config.home)),
        Err(error) => return Err(error.into()),
    };
    // Whoever met it may have told only the one who asked him: not everybody who asks can open the database again.
    let failed = Arc::new(Notify::new());
    let hears = failed.clone();
    store.on_failure(move || hears.notify_one());
    point("engine.opened");
    let key = endpoint::device_key(&config.home)?;
    let signer = Signer::new(key.clone());
    check_birth(&store, &config.home, &signer)?;
    point("engine.born");
    let admission = Arc::new(RwLock::new(Admission::default()));
    let endpoint = endpoint::bind(&config, key, admission.clone()).await?;
    let (events, mut inbox) = mpsc::channel(QUEUE);
    let (peer_events, mut peer_inbox) = mpsc::channel(QUEUE);
    let socket = socket::listen(&config.home, events.clone())?;
    let mut boot = [0; 8];
    getrandom::fill(&mut boot).map_err(|e| Error::Network(format!("no random numbers: {e}")))?;
    let hello = Hello {
        boot: u64::from_le_bytes(boot),
        name: config.name.clone(),
    };
    let outboards = config.home.join("outboards");
    for dir in [&outboards, &config.home.join(crate::folder::DAMAGED)] {
        std::fs::create_dir_all(dir).map_err(|e| Error::Home {
            path: dir.clone(),
            reason: e.to_string(),
        })?;
    }
    let verifying = verify::Verifying::new(&config.home);
    let mut engine = Engine {
        config,
        store,
        signer,
        endpoint: endpoint.clone(),
        admission,
        served: Arc::new(Served::default()),
        hello,
        events: events.clone(),
        peer_events,
        folders: BTreeMap::new(),
        devices: HashMap::new(),
        waits: Vec::new(),
        next_wait: 0,
        journal: Journal::default(),
        verifying,
        stopping: None,
        reopen: false,
        collecting: Arc::default(),
    };
    // What writing outboards left behind when the last engine was cut off; nobody writes any yet.
    if let Err(error) = crate::outboard::clear_temps(&outboards) {
        tracing::debug!("clearing {}: {error}", outboards.display());
    }
    engine.load()?;
    engine.collect_by_itself();
    engine.scrub_by_itself();
    point("engine.loaded");
    let accept = tokio::spawn(accept(endpoint.clone(), events));
    if let Some(ready) = ready.take() {
        let _ = ready.send(());
    }
    // When memory is given back, if nothing happens before; `None`: it was.
    let mut rest = Some(Instant::now() + REST);
    while engine.stopping.is_none() && !engine.reopen {
        let due = engine.next_due();
        let event = tokio::select! {
            () = shutdown.as_mut() => break,
            () = failed.notified() => {
                engine.reopen = true;
                continue;
            }
            Some(event) = inbox.recv() => event,
            Some(event) = peer_inbox.recv() => Event::Peer(event),
            () = tokio::time::sleep_until(rest.unwrap_or(due)), if rest.is_some() => {
                rest = None;
                tokio::task::spawn_blocking(memory::give_back);
                continue;
            }
            () = tokio::time::sleep_until(due) => {
                engine.tick();
                continue;
            }
        };
        engine.handle(event);
        rest = Some(Instant::now() + REST);
    }
    accept.abort();
    point("engine.stopping");
    engine.close().await;
    point("engine.closed");
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.close()).await;
    drop(socket);
    // The database is free for the next engine before anybody hears that this one is gone.
    let responder = engine.stopping.take();
    let ending = if engine.reopen && responder.is_none() {
        Ending::Reopen
    } else {
        Ending::Stopped
    };
    drop(engine);
    if let Some(responder) = responder {
        responder.done(&());
        responder.flushed().await;
    }
    Ok(ending)
}

/// Is this the database that made its replica ids: the same machine, the same file? Otherwise it is a copy, and
/// goes on under new ids.
fn check_birth(store: &Store, home: &Path, signer: &Signer) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let mut hash = blake3::Hasher::new();
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    hash.update(&machine);
    for path in [home, store.path()] {
        let Ok(meta) = std::fs::metadata(path) else {
            continue;
        };
        // File systems give an inode number out again at once; the time of birth tells the two apart.
        let born = meta
            .created()
            .ok()
            .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        hash.update(&meta.ino().to_le_bytes());
        hash.update(&born.map_or(0, |d| d.as_nanos()).to_le_bytes());
    }
    let place = u64::from_le_bytes(hash.finalize().as_bytes()[..8].try_into().expect("eight bytes"));
    let mut fresh = HashMap::new();
    for row in store.folders()? {
        fresh.insert(row.id, signer.begin(row.id)?);
    }
    let renewed = store.check_birth(place, |id, was, seq, chain| Renewal {
        replica: fresh[&id],
        retired: signer.claim(id, was, (seq, chain), false).map(|(_, claim)| claim),
    })?;
    if renewed {
        tracing::warn!(
            "the state directory is a copy or was put back from one: this device goes on under new replica ids"
        );
    }
    Ok(())
}

/// Takes connections; the handshake's gate has let in only whom it should.
async fn accept(endpoint: Endpoint, events: mpsc::Sender<Event>) {
    while let Some(incoming) = endpoint.accept().await {
        let events = events.clone();
        tokio::spawn(async move {
            let Ok(accepting) = incoming.accept() else { return };
            let Ok(connection) = accepting.await else { return };
            if connection.alpn() == ALPN {
                let _ = events.send(Event::Incoming(connection)).await;
                return;
            }
            match pairing::read_request(&connection).await {
                Ok((request, send)) => {
                    let _ = events
                        .send(Event::PairAsked {
                            connection,
                            request,
                            send,
                        })
                        .await;
                }
                Err(error) => tracing::debug!("pairing: {error}"),
            }
        });
    }
}

impl Engine {
    /// Reads devices and folders from the database and starts them.
    fn load(&mut self) -> Result<(), Error> {
        for row in self.store.devices()? {
            self.add_device(row);
        }
        for row in self.store.folders()? {
            self.open_folder(row);
        }
        self.admit()?;
        self.journal.say(
            "started",
            None,
            None,
            format!("device {} ({})", self.config.name, self.endpoint.id()),
        );
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(request, responder) => self.request(request, responder),
            Event::Peer(PeerEvent::Up(link)) => self.link_up(link),
            Event::Peer(PeerEvent::Said {
                device,
                link,
                message,
            }) => self.said(device, link, message),
            Event::Peer(PeerEvent::Down { device, link, reason }) => self.link_down(device, link, &reason),
            Event::Dialled { device, connection } => self.dialled(device, connection),
            Event::Incoming(connection) => self.start_link(connection),
            Event::PairAsked {
                connection,
                request,
                send,
            } => self.pair_asked(connection, request, send),
            Event::Redeemed { asked, result } => self.redeemed(*asked, result),
            Event::FolderChanged(key) => self.folder_changed(key),
            Event::Collect(mode) => self.collect_now(mode),
            Event::Scrub => self.scrub_now(),
            Event::Settled { device, link, folder } => self.settled(device, link, folder),
            Event::Answered(key) => self.hold_answered(key),
            Event::PullEnded {
                folder,
                device,
                merged,
            } => self.pull_ended(folder, device, merged),
            Event::Flushed { wait } => self.flushed(wait),
            Event::FlushedFor { folder, device, wait } => self.flushed_for(folder, device, wait),
        }
        self.check_waits();
        self.report_changes();
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        self.dial_due();
        self.retry_folders();
        self.check_waits();
        self.report_changes();
    }

    /// When the next thing is due by the clock; far away if nothing is.
    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let dials = self.devices.values().filter_map(Device::dial_due);
        let folders = self.folders.values().filter_map(Slot::retry_due);
        let waits = self.waits.iter().map(|w| w.deadline);
        dials
            .chain(folders)
            .chain(waits)
            .chain(self.journal.due())
            .min()
            .unwrap_or(far)
            .min(far)
    }

    /// Runs a connection; its events come back to the loop.
    fn start_link(&self, connection: Connection) {
        tokio::spawn(peer::run(
            connection,
            self.hello.clone(),
            self.served.clone(),
            self.peer_events.clone(),
        ));
    }

    /// Writes down for the handshake's gate and for request tasks who may what.
    fn admit(&mut self) -> Result<(), Error> {
        let now = crate::folder::now_ms();
        let pairing = self.store.tickets()?.iter().any(|t| {
            !t.revoked && t.uses_left > 0 && t.expires_ms > now && t.failures < pairing::MAX_FAILURES
        });
        let mut admission = self
            .admission
            .write()
            .expect("the admission lock is never poisoned");
        admission.devices = self
            .devices
            .values()
            .filter(|d| !d.row.paused)
            .map(|d| d.id)
            .collect();
        admission.pairing = pairing;
        drop(admission);
        self.serve();
        Ok(())
    }

    /// Ends everything: no new work, then the threads, each after what it is at.
    async fn close(&mut self) {
        self.journal
            .say("stopped", None, None, "the engine has stopped".into());
        for waiter in self.waits.drain(..) {
            waiter.responder.failed("the engine was stopped", false);
        }
        for device in self.devices.values_mut() {
            device.close("stopping");
        }
        self.verifying.close().await;
        for (_, slot) in std::mem::take(&mut self.folders) {
            slot.close().await;
        }
        self.served.replace(HashMap::new());
    }
}

/// Runs short blocking work from the loop: opening a folder, one small transaction.
fn short<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
