//! What a piece of work costs: seconds, bytes on the loopback, CPU and memory of the processes at both ends. Figures
//! are read from /proc; memory is sampled, because processes that have ended leave none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::process::flush;
use super::results::{Column, Figures};

/// How often processes are looked at: how memory grows in the last moments of one is not seen.
const STEP: Duration = Duration::from_millis(50);
/// Ticks a second in /proc/PID/stat: USER_HZ, the same for all of Linux that we know.
const TICKS: f64 = 100.0;

/// Which of the two sides a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where the content is at first.
    From,
    /// Where it goes.
    To,
}

/// Watches the processes of one pair. Its thread ends with the last of its copies.
#[derive(Clone)]
pub(super) struct Meter(mpsc::Sender<Order>);

enum Order {
    Add(End, u32),
    /// From now on.
    Mark(mpsc::Sender<()>),
    Read(mpsc::Sender<[Usage; 2]>),
}

/// What one end used since the mark.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Seconds of CPU time.
    pub(super) cpu: f64,
    /// Most resident memory that one process had, in bytes.
    pub(super) peak: u64,
    /// Resident memory now, in bytes.
    pub(super) resident: u64,
}

impl Meter {
    pub(super) fn start() -> Meter {
        let (send, orders) = mpsc::channel();
        std::thread::spawn(move || watch(&orders));
        Meter(send)
    }

    /// This process, and the children of its first thread.
    pub(super) fn add(&self, end: End, pid: u32) {
        self.order(Order::Add(end, pid));
    }

    /// Forgets what was used so far.
    pub(super) fn mark(&self) {
        let (send, done) = mpsc::channel();
        self.order(Order::Mark(send));
        done.recv()
            .expect("the meter's thread lives as long as the meter");
    }

    /// What the two ends used since the mark.
    pub(super) fn read(&self) -> [Usage; 2] {
        let (send, usage) = mpsc::channel();
        self.order(Order::Read(send));
        usage
            .recv()
            .expect("the meter's thread lives as long as the meter")
    }

    fn order(&self, order: Order) {
        self.0
            .send(order)
            .expect("the meter's thread lives as long as the meter");
    }
}

/// A process that was named, with all that comes from it.
struct Root {
    end: End,
    pid: u32,
    /// CPU time of it and of its children, those that have ended included: as last seen, and at the mark.
    ticks: u64,
    base: u64,
}

/// The memory of one process.
struct Memory {
    end: End,
    peak: u64,
    resident: u64,
}

fn watch(orders: &mpsc::Receiver<Order>) {
    let mut roots: Vec<Root> = Vec::new();
    let mut memory = BTreeMap::new();
    loop {
        let order = orders.recv_timeout(STEP);
        if let Ok(Order::Add(end, pid)) = order {
            roots.push(Root {
                end,
                pid,
                ticks: 0,
                base: 0,
            });
        }
        look(&mut roots, &mut memory);
        match order {
            Ok(Order::Add(..)) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(Order::Mark(done)) => {
                for root in &mut roots {
                    root.base = root.ticks;
                }
                for (pid, memory) in &mut memory {
                    memory.peak = 0;
                    // Resets the kernel's high-water mark; fails for a process that has ended.
                    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
                }
                let _ = done.send(());
            }
            Ok(Order::Read(answer)) => {
                let _ = answer.send([End::From, End::To].map(|end| sum(end, &roots, &memory)));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn sum(end: End, roots: &[Root], memory: &BTreeMap<u32, Memory>) -> Usage {
    let mut usage = Usage::default();
    for root in roots.iter().filter(|root| root.end == end) {
        usage.cpu += (root.ticks - root.base) as f64 / TICKS;
    }
    for memory in memory.values().filter(|memory| memory.end == end) {
        usage.peak = usage.peak.max(memory.peak);
        usage.resident += memory.resident;
    }
    usage
}

/// Looks at all processes that are there.
fn look(roots: &mut [Root], memory: &mut BTreeMap<u32, Memory>) {
    for memory in memory.values_mut() {
        memory.resident = 0;
    }
    // One that was named itself is not counted with its parent.
    let mut counted: BTreeSet<u32> = roots.iter().map(|root| root.pid).collect();
    for root in roots {
        let mut open = vec![root.pid];
        let mut ticks = 0;
        while let Some(pid) = open.pop() {
            ticks += self::ticks(pid);
            if let Some((peak, resident)) = self::memory(pid) {
                let memory = memory.entry(pid).or_insert(Memory {
                    end: root.end,
                    peak: 0,
                    resident: 0,
                });
                memory.peak = memory.peak.max(peak);
                memory.resident = resident;
            }
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            for child in children.unwrap_or_default().split_whitespace() {
                open.extend(child.parse().ok().filter(|child| counted.insert(*child)));
            }
        }
        // One that has ended and was waited for has no time any more: what was last seen counts.
        root.ticks = root.ticks.max(ticks);
    }
}

/// User and system time of a process and of its children that have ended, in ticks. Also of one that has ended and
/// was not waited for yet.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let fields = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    let fields = fields.split_whitespace().skip(11).take(4);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Peak and present resident memory, in bytes.
fn memory(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("VmHWM:")? * 1024, kib("VmRSS:")? * 1024))
}

/// Bytes that the loopback device has carried, headers and acknowledgements included.
pub(super) fn wire() -> Result<u64> {
    let counters = fs::read_to_string("/proc/net/dev").context("the loopback's counters")?;
    let lo = counters.lines().find_map(|l| l.trim_start().strip_prefix("lo:"));
    let received = lo.and_then(|l| l.split_whitespace().next());
    Ok(received.context("a loopback device")?.parse()?)
}

/// One measured piece of work.
pub(super) struct Span<'a> {
    meter: &'a Meter,
    start: Instant,
    wire: u64,
    seconds: Option<f64>,
}

impl<'a> Span<'a> {
    /// Begins now; what was written before is on the disk.
    pub(super) fn begin(meter: &'a Meter) -> Result<Span<'a>> {
        flush()?;
        meter.mark();
        Ok(Span {
            meter,
            wire: wire()?,
            start: Instant::now(),
            seconds: None,
        })
    }

    /// When the work must be done.
    pub(super) fn deadline(&self, limit: Duration) -> Instant {
        self.start + limit
    }

    /// Stops the clock; bytes, CPU and memory go on to be counted.
    pub(super) fn stop_clock(&mut self) {
        self.seconds = Some(self.start.elapsed().as_secs_f64());
    }

    /// All figures.
    pub(super) fn end(mut self) -> Result<Figures> {
        if self.seconds.is_none() {
            self.stop_clock();
        }
        let [from, to] = self.meter.read();
        let wire = wire()? - self.wire;
        let mut figures = Figures::default();
        figures.set(Column::Seconds, self.seconds.unwrap_or_default());
        figures.set(Column::Wire, wire as f64);
        figures.set(Column::CpuFrom, from.cpu);
        figures.set(Column::CpuTo, to.cpu);
        figures.set(Column::PeakFrom, from.peak as f64);
        figures.set(Column::PeakTo, to.peak as f64);
        Ok(figures)
    }
}
