//! A client and a server as two tasks of one thread: they hand off by an event, and talk in linked sends.
//!
//! ```sh
//! cargo run --release --example coro
//! ```
//!
//! Prints the conversation, and what it cost in system calls. `AIO_BACKEND=epoll` (or `poll`) shows the same on the
//! emulation.

use aio::{
    Backend, Closing, Stats, coro,
    op::{
        Accept, Bind, Close, Connect, Domain, Listen, Op, Recv, RecvFlags, Send, SetSockOpt, Socket, SocketType, option,
    },
    sync::Event,
};
use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::ExitCode,
};

const GREETING: [&str; 3] = ["hey ", "I'm doing multiple IO ops at once ", "how cool is that?"];

/// What the server tells the client. They take turns on one thread, so a `Cell` is enough to pass the address; the
/// event is what a task can wait for.
#[derive(Default)]
struct Opening {
    address: Cell<Option<SocketAddr>>,
    listening: Event,
}

fn main() -> ExitCode {
    match coro::run(conversation) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&error.into()),
    }
}

fn failure(error: &io::Error) -> ExitCode {
    eprintln!("coro: {error}");
    ExitCode::FAILURE
}

/// The root task: the parent of both, from whom they borrow.
fn conversation() -> io::Result<()> {
    let before = aio::stats();
    let opening = Opening::default();
    let (server, client) = coro::scope(|s| {
        // If one of them fails, the other would wait for it for ever.
        let server = s.spawn(|| server(&opening).inspect_err(|_| s.cancel()));
        let client = s.spawn(|| client(&opening).inspect_err(|_| s.cancel()));
        (server.join(), client.join())
    });
    let failures: Vec<_> = [server?, client?].into_iter().filter_map(Result::err).collect();
    // One of two is the failure, and the other what has become of it.
    match failures.into_iter().min_by_key(aio::is_canceled) {
        Some(error) => Err(error),
        None => {
            report(aio::stats() - before);
            Ok(())
        }
    }
}

fn server(opening: &Opening) -> io::Result<()> {
    let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream))?;
    // Each step makes sense only if the one before has succeeded: one chain, which the kernel goes through by itself.
    aio::multi((
        SetSockOpt::new(&socket, option::ReuseAddr, true).link(),
        Bind::new(&socket, (Ipv4Addr::LOCALHOST, 0)).link(),
        Listen::new(&socket, 16),
    ))?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    println!("server listens on {address}");
    opening.address.set(Some(address));
    opening.listening.set();

    let connection = Closing::new(aio::single(Accept::new(&listener))?.fd);
    let mut answer = [0; 64];
    // The sends go out in order. The last one has no link, so the answer is awaited meanwhile, and not after them.
    let [a, b, c] = GREETING;
    let (_, _, _, len) = aio::multi((
        Send::new(&connection, a).link(),
        Send::new(&connection, b).link(),
        Send::new(&connection, c),
        Recv::new(&connection, &mut answer),
    ))?;
    GREETING.iter().for_each(|text| says("server", text.as_bytes()));
    says("client", &answer[..len]);

    // A hard link: it is closed also if the client is gone already.
    aio::multi((
        Send::new(&connection, "ok, bye").hard_link(),
        Close::new(&connection).hard_link(),
        Close::new(listener),
    ))?;
    Ok(())
}

fn client(opening: &Opening) -> io::Result<()> {
    let socket: OwnedFd = aio::single(Socket::new(Domain::V4, SocketType::Stream))?;
    opening.listening.wait()?;
    let Some(address) = opening.address.get() else {
        return Err(io::Error::other("the server listens, and has not said where"));
    };

    // All that the client ever does is known beforehand, so it is one batch. `WAITALL` has the kernel wait for all
    // three parts of the greeting before it goes on to the answer.
    let (mut greeting, mut farewell) = (vec![0; GREETING.concat().len()], [0; 64]);
    let ((), _, _, len) = aio::multi((
        Connect::new(&socket, address).link(),
        Recv::new(&socket, &mut greeting[..]).flags(RecvFlags::WAITALL).link(),
        Send::new(&socket, "dude, I don't care").link(),
        Recv::new(&socket, &mut farewell),
    ))?;
    says("server", &farewell[..len]);
    if greeting != GREETING.concat().as_bytes() {
        return Err(io::Error::other("the client has heard another greeting than the server's"));
    }
    println!("client has heard everything");
    Ok(())
}

fn says(who: &str, what: &[u8]) {
    println!("{who}: {}", String::from_utf8_lossy(what).trim_end());
}

fn report(cost: Stats) {
    match cost.backend.unwrap_or_default() {
        Backend::IoUring => {
            print!("io_uring: {} × io_uring_enter for {} operations", cost.enters, cost.submitted);
            // Kernels before 6.11 do some of them by system calls of their own.
            println!("{}", if cost.direct > 0 { format!(", and {} other calls", cost.direct) } else { String::new() });
        }
        emulation => println!("{emulation}: {} system calls, {} of them to wait", cost.system_calls(), cost.waits),
    }
}
