//! A queue with operations that wait or not, cancelled, taken, left and forgotten in any order.

use aio::{Config, Queue, op::*, queue::Token};
use arbitrary::Arbitrary;
use std::{
    cell::RefCell,
    fs::File,
    mem::ManuallyDrop,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    ReadFile { len: u8, at: u8 },
    WriteFile { len: u8, at: u8 },
    Recv { len: u8, limit: Option<u8> },
    Send { len: u8 },
    ReadPipe { len: u8 },
    WritePipe { len: u8 },
    Timeout { micros: u8 },
    /// A receive that starts something.
    Chain { len: u8, hard: bool },
    Multi { len: u8 },
    Cancel { which: u8 },
    CancelAll,
    Poll { take: u8 },
    Wait { micros: u8, take: u8 },
    Forget,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum End {
    Drop,
    Drain,
    Forget,
}

thread_local! {
    /// Queues that nobody drops. They can be found here, so that no search for leaks takes them for one.
    static FORGOTTEN: RefCell<ManuallyDrop<Vec<ManuallyDrop<Queue<'static, ()>>>>> = RefCell::default();
}

const MOST: usize = 48;
static BYTES: [u8; 256] = [0x5a; 256];

struct Things {
    file: Arc<File>,
    stream: [Arc<UnixStream>; 2],
    pipe: [Arc<OwnedFd>; 2],
}

impl Things {
    fn new() -> Things {
        let (a, b) = UnixStream::pair().unwrap();
        let pipe = std::io::pipe().unwrap();
        let pipe = [Arc::new(pipe.0.into()), Arc::new(pipe.1.into())];
        Things { file: Arc::new(tempfile::tempfile().unwrap()), stream: [Arc::new(a), Arc::new(b)], pipe }
    }
}

struct Player {
    queue: Queue<'static, ()>,
    things: Things,
    tokens: Vec<Token>,
    sent: usize,
}

impl Player {
    fn submit(&mut self, step: Step) {
        let Things { file, stream, pipe } = &self.things;
        let queue = &self.queue;
        let token = match step {
            Step::ReadFile { len, at } => {
                queue.submit(Read::new(file.clone(), vec![0; len.into()]).at(at.into()), drop).ok()
            }
            Step::WriteFile { len, at } => {
                queue.submit(Write::new(file.clone(), &BYTES[..len.into()]).at(at.into()), drop).ok()
            }
            Step::Recv { len, limit: None } => {
                queue.submit(Recv::new(stream[0].clone(), vec![0; len.into()]), drop).ok()
            }
            Step::Recv { len, limit: Some(limit) } => {
                let recv = Recv::new(stream[0].clone(), vec![0; len.into()]);
                queue.submit(recv.timeout(Duration::from_micros(limit.into())), drop).ok()
            }
            Step::Send { len } => queue.submit(Send::new(stream[1].clone(), &BYTES[..len.into()]), drop).ok(),
            Step::ReadPipe { len } => queue.submit(Read::new(pipe[0].clone(), vec![0; len.into()]), drop).ok(),
            Step::WritePipe { len } => queue.submit(Write::new(pipe[1].clone(), &BYTES[..len.into()]), drop).ok(),
            Step::Timeout { micros } => queue.submit(Timeout::after(Duration::from_micros(micros.into())), drop).ok(),
            _ => None,
        };
        self.tokens.extend(token);
    }

    fn submit_chain(&mut self, len: u8, hard: bool) {
        let recv = Recv::new(self.things.stream[0].clone(), vec![0; len.into()]);
        let send = Send::new(self.things.stream[1].clone(), &BYTES[..1]);
        let tokens = match hard {
            false => self.queue.submit_chain((recv.link(), send), (drop, drop)).ok(),
            true => self.queue.submit_chain((recv.hard_link(), send), (drop, drop)).ok(),
        };
        self.tokens.extend(tokens.into_iter().flatten());
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Chain { len, hard } => self.submit_chain(len, hard),
            Step::Multi { len } => {
                if let Ok(pool) = self.queue.buf_pool(4, usize::from(len) + 1) {
                    let op = RecvMulti::new(self.things.stream[0].clone(), &pool);
                    self.tokens.extend(self.queue.submit_multi(op, drop).ok());
                }
            }
            Step::Cancel { which } => {
                if let Some(&token) = self.tokens.get(usize::from(which)) {
                    let _ = self.queue.cancel(token);
                }
            }
            Step::CancelAll => _ = self.queue.cancel_all(),
            Step::Poll { take } => _ = self.queue.poll().unwrap().take(take.into()).count(),
            Step::Wait { micros, take } => {
                let limit = Instant::now() + Duration::from_micros(micros.into());
                _ = self.queue.wait_until(limit).unwrap().take(take.into()).count();
            }
            Step::Forget => std::mem::forget(self.queue.poll().unwrap()),
            // What would fill a socket or a pipe waits for ever, and only once is enough.
            Step::Send { len } | Step::WritePipe { len } => {
                self.sent += usize::from(len);
                if self.sent < 32 << 10 {
                    self.submit(step);
                }
            }
            _ => self.submit(step),
        }
    }
}

pub fn run(config: Config, steps: &[Step], end: End) {
    let queue = Queue::with_config(16, config).unwrap();
    let mut player = Player { queue, things: Things::new(), tokens: Vec::new(), sent: 0 };
    for &step in steps.iter().take(MOST) {
        player.play(step);
    }
    assert!(player.queue.len() <= player.queue.capacity());
    match end {
        End::Drop => {}
        End::Drain => {
            while !player.queue.is_empty() {
                player.queue.cancel_all();
                let _ = player.queue.wait(1).unwrap().count();
            }
        }
        // A ring is leaked with it, so that is not done each time.
        End::Forget if steps.len() == 7 => FORGOTTEN.with_borrow_mut(|all| all.push(ManuallyDrop::new(player.queue))),
        End::Forget => {}
    }
}
