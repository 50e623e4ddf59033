//! Programs by chance.

use super::program::*;
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};

type Any<T> = BoxedStrategy<T>;

/// What is read and written one after another most of the time, so that something comes of it.
fn waiting_handles() -> Any<H> {
    prop_oneof![
        4 => (0..2u8).prop_map(H::PipeR),
        4 => (0..2u8).prop_map(H::PipeW),
        8 => (0..2u8, any::<bool>()).prop_map(|(i, side)| H::Stream(i, side)),
        3 => any::<bool>().prop_map(H::Tcp),
        3 => any::<bool>().prop_map(H::Dgram),
        3 => any::<bool>().prop_map(H::Seq),
        2 => any::<bool>().prop_map(H::Udp),
        1 => select(vec![H::EndedR, H::BrokenW, H::FullW, H::Hung, H::FullStream, H::Lonely, H::Listener]),
        1 => (0..3u8).prop_map(H::Open),
    ]
    .boxed()
}

fn disk_handles() -> Any<H> {
    prop_oneof![
        6 => (0..3u8).prop_map(H::File),
        1 => select(vec![H::ReadOnly, H::WriteOnly, H::Append, H::PathOnly, H::Dir, H::Missing]),
        2 => (0..3u8).prop_map(H::Open),
    ]
    .boxed()
}

fn any_handle() -> Any<H> {
    prop_oneof![waiting_handles(), disk_handles()].boxed()
}

fn sockets() -> Any<H> {
    prop_oneof![
        8 => (0..2u8, any::<bool>()).prop_map(|(i, side)| H::Stream(i, side)),
        4 => any::<bool>().prop_map(H::Tcp),
        4 => any::<bool>().prop_map(H::Dgram),
        4 => any::<bool>().prop_map(H::Seq),
        4 => any::<bool>().prop_map(H::Udp),
        3 => select(vec![H::Hung, H::FullStream, H::Lonely, H::Listener, H::File(0), H::PipeR(0), H::Missing]),
        2 => (0..3u8).prop_map(H::Open),
    ]
    .boxed()
}

fn short_len() -> Any<u16> {
    prop_oneof![1 => Just(0), 12 => 1..40u16].boxed()
}

fn disk_len() -> Any<u16> {
    prop_oneof![1 => Just(0), 8 => 1..200u16, 2 => 200..9000u16].boxed()
}

fn form() -> Any<Form> {
    prop_oneof![3 => Just(Form::Plain), 1 => (0..12u8).prop_map(Form::Vectored)].boxed()
}

fn rare(often: u32) -> Any<bool> {
    prop_oneof![often => Just(false), 1 => Just(true)].boxed()
}

fn name() -> Any<u8> {
    (0..NAMES.len() as u8).boxed()
}

fn pick(values: &[i32]) -> Any<i32> {
    select(values.to_vec()).boxed()
}

fn transfers() -> Any<Op> {
    let on = |h: Any<H>, len: Any<u16>| (h, len, option::weighted(0.4, 0..300u16), rare(6), form(), any::<bool>());
    let make = |(h, len, at, now, form, writes): (H, u16, Option<u16>, bool, Form, bool)| {
        if writes { Op::Write { h, len, at, now, form } } else { Op::Read { h, len, at, now, form } }
    };
    prop_oneof![
        5 => on(disk_handles(), disk_len()).prop_map(make),
        5 => on(waiting_handles(), short_len()).prop_map(make),
    ]
    .boxed()
}

fn on_disk() -> Any<Op> {
    let modes = [
        0,
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_ZERO_RANGE,
    ];
    prop_oneof![
        2 => (any_handle(), any::<bool>()).prop_map(|(h, data)| Op::Fsync { h, data }),
        2 => (any_handle(), disk_len()).prop_map(|(h, len)| Op::Ftruncate { h, len }),
        2 => (any_handle(), 0..6000u16, disk_len(), pick(&modes)).prop_map(|(h, at, len, flags)| Op::Fallocate { h, at, len, flags }),
        1 => (any_handle(), 0..6u8, disk_len()).prop_map(|(h, advice, len)| Op::Fadvise { h, advice, len }),
        2 => any_handle().prop_map(|h| Op::StatxOf { h }),
    ]
    .boxed()
}

fn open_flags() -> Any<i32> {
    use libc::*;
    let access = pick(&[O_RDONLY, O_WRONLY, O_RDWR, O_RDWR]);
    let more =
        vec(pick(&[O_CREAT, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_NONBLOCK]), 0..3);
    (access, more).prop_map(|(access, more)| more.into_iter().fold(access, |flags, flag| flags | flag)).boxed()
}

fn names() -> Any<Op> {
    prop_oneof![
        5 => (name(), open_flags(), 0..5u8).prop_map(|(name, flags, keep)| Op::Open { name, flags, keep }),
        3 => (name(), any::<bool>()).prop_map(|(name, follow)| Op::Statx { name, follow }),
        3 => (name(), name(), 0..4u32).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        2 => (name(), rare(3)).prop_map(|(name, directory)| Op::Unlink { name, directory }),
        2 => (name(), pick(&[0o700, 0o755, 0o1777])).prop_map(|(name, mode)| Op::MkDir { name, mode: mode as u16 }),
        1 => (name(), name()).prop_map(|(target, name)| Op::Symlink { target, name }),
        2 => (name(), name(), any::<bool>()).prop_map(|(from, to, follow)| Op::Link { from, to, follow }),
    ]
    .boxed()
}

fn pipes() -> Any<Op> {
    let ends = || {
        prop_oneof![
            3 => (0..2u8).prop_map(H::PipeR),
            3 => (0..2u8).prop_map(H::PipeW),
            2 => (0..3u8).prop_map(H::File),
            1 => select(vec![H::EndedR, H::BrokenW, H::FullW, H::Append, H::Dir, H::Missing]),
        ]
    };
    let offset = || option::weighted(0.3, 0..200u16);
    prop_oneof![
        4 => (ends(), ends(), short_len(), offset(), offset())
            .prop_map(|(from, to, len, from_at, to_at)| Op::Splice { from, to, len, from_at, to_at }),
        2 => (ends(), ends(), short_len()).prop_map(|(from, to, len)| Op::Tee { from, to, len }),
    ]
    .boxed()
}

fn targets() -> Any<Target> {
    use Target::*;
    select(vec![Listener, Listener, Refused, Udp(false), Udp(true), Unix(0), Unix(1), Unix(2), Taken, Free, Foreign])
        .boxed()
}

fn addressed() -> Any<Op> {
    // A connection to elsewhere would leave this machine.
    let near =
        || targets().prop_filter_map("elsewhere", |to| (!matches!(to, Target::Foreign | Target::Free)).then_some(to));
    prop_oneof![
        2 => (0..4u8, 0..3u8, 0..4u8).prop_map(|(domain, kind, keep)| Op::Socket { domain, kind, keep }),
        2 => (0..2u8).prop_map(|keep| Op::Pipe { keep }),
        3 => (sockets(), targets()).prop_map(|(h, to)| Op::Bind { h, to }),
        1 => sockets().prop_map(|h| Op::Listen { h }),
        3 => (prop_oneof![3 => Just(H::Listener), 1 => sockets()], any::<bool>(), option::weighted(0.3, 0..3u8))
            .prop_map(|(h, now, keep)| Op::Accept { h, now, keep }),
        3 => (prop_oneof![2 => Just(H::Lonely), 1 => sockets()], near()).prop_map(|(h, to)| Op::Connect { h, to }),
        3 => (prop_oneof![3 => any::<bool>().prop_map(H::Udp), 1 => sockets()], short_len(), near())
            .prop_map(|(h, len, to)| Op::SendTo { h, len, to }),
    ]
    .boxed()
}

fn messages() -> Any<Op> {
    use libc::{MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
    let flags = || pick(&[0, 0, 0, MSG_PEEK, MSG_WAITALL, MSG_PEEK | MSG_WAITALL, MSG_TRUNC]);
    prop_oneof![
        6 => (sockets(), short_len(), flags(), rare(3)).prop_map(|(h, len, flags, now)| Op::Recv { h, len, flags, now }),
        6 => (sockets(), short_len(), pick(&[0, 0, MSG_WAITALL, libc::MSG_MORE]), rare(3))
            .prop_map(|(h, len, flags, now)| Op::Send { h, len, flags, now }),
        2 => (sockets(), short_len(), rare(3)).prop_map(|(h, len, now)| Op::RecvFrom { h, len, now }),
        3 => (sockets(), (0..20u8, 0..20u8), flags(), rare(3)).prop_map(|(h, lens, flags, now)| Op::RecvMsg { h, lens, flags, now }),
        3 => (sockets(), (0..20u8, 0..20u8), rare(4), rare(3)).prop_map(|(h, lens, rights, now)| Op::SendMsg { h, lens, rights, now }),
        1 => (sockets(), 0..3u8).prop_map(|(h, how)| Op::Shutdown { h, how }),
    ]
    .boxed()
}

fn options() -> Any<Op> {
    use Question as Q;
    let to = prop_oneof![
        any::<bool>().prop_map(Setting::NoDelay),
        any::<bool>().prop_map(Setting::KeepAlive),
        option::of(0..9u8).prop_map(Setting::Linger),
        (1..9u8).prop_map(Setting::RecvTimeout),
        (0..300u16).prop_map(Setting::Ttl),
    ];
    let what = select(vec![Q::NoDelay, Q::KeepAlive, Q::Type, Q::Error, Q::Ttl, Q::Linger]);
    prop_oneof![
        (sockets(), to).prop_map(|(h, to)| Op::Set { h, to }),
        (sockets(), what).prop_map(|(h, what)| Op::Get { h, what }),
    ]
    .boxed()
}

fn events() -> Any<Op> {
    let wanted = [libc::POLLIN, libc::POLLOUT, libc::POLLIN | libc::POLLOUT, libc::POLLPRI, libc::POLLRDHUP, 0];
    prop_oneof![
        2 => (0..300u16).prop_map(|micros| Op::Timeout { micros }),
        3 => (any_handle(), pick(&wanted.map(i32::from))).prop_map(|(h, events)| Op::Poll { h, events: events as u16 }),
        2 => (0..2u8).prop_map(|source| Op::WaitEvent { source }),
        3 => (0..2u8).prop_map(|source| Op::Notify { source }),
        1 => (0..2u8, any::<bool>()).prop_map(|(word, right)| Op::FutexWait { word, right }),
        1 => (0..2u8, 0..3u8).prop_map(|(word, count)| Op::FutexWake { word, count }),
    ]
    .boxed()
}

fn ops() -> Any<Op> {
    prop_oneof![
        2 => Just(Op::Nop),
        8 => transfers(),
        3 => on_disk(),
        5 => names(),
        2 => pipes(),
        3 => addressed(),
        7 => messages(),
        2 => options(),
        3 => events(),
        1 => (0..3u8).prop_map(|keep| Op::Close { keep }),
    ]
    .boxed()
}

fn link() -> Any<Link> {
    prop_oneof![Just(Link::Soft), Just(Link::Hard)].boxed()
}

fn items(ops: Any<Op>) -> Any<Item> {
    let limit = prop_oneof![4 => Just(Limit::None), 1 => Just(Limit::Zero), 3 => Just(Limit::Long)];
    (ops, limit, link()).prop_map(|(op, limit, link)| Item { op, limit, link }).boxed()
}

fn unit() -> Any<Unit> {
    prop_oneof![
        4 => vec(items(ops()), 1..=1),
        6 => vec(items(ops()), 2..=4),
        1 => vec(items(ops()), 5..=8),
    ]
    .boxed()
}

fn shape() -> Any<Shape> {
    prop_oneof![Just(Shape::Batch), Just(Shape::Queue), Just(Shape::Tasks)].boxed()
}

fn runs() -> Any<Step> {
    // All of a kind now and then, which is what most batches are.
    let alike = (vec(items(ops()), 6), vec(link(), 0..3)).prop_map(|(items, links)| {
        let mut items = items.into_iter();
        let mut units = Vec::new();
        while items.len() > links.len() {
            let mut unit: Unit = items.by_ref().take(links.len() + 1).collect();
            unit.iter_mut().zip(&links).for_each(|(item, link)| item.link = *link);
            units.push(unit);
        }
        units
    });
    let units = prop_oneof![3 => vec(unit(), 1..5), 1 => alike];
    (shape(), units).prop_map(|(shape, units)| Step::Run { shape, units }).boxed()
}

fn meetings() -> Any<Step> {
    let side = any::<bool>;
    let what = prop_oneof![
        3 => (0..2u8, side()).prop_map(|(i, side)| Meeting::Stream(i, side)),
        2 => side().prop_map(Meeting::StreamAll),
        2 => (0..2u8).prop_map(Meeting::Pipe),
        2 => (0..2u8, side()).prop_map(|(i, side)| Meeting::Poll(i, side)),
        2 => (0..2u8).prop_map(Meeting::Event),
        1 => side().prop_map(Meeting::Tcp),
        1 => Just(Meeting::Accept),
    ];
    (shape(), what, 0..400u16, link(), ops())
        .prop_map(|(shape, what, micros, link, then)| Step::Meet { shape, what, micros, link, then })
        .boxed()
}

fn endings() -> Any<Step> {
    let how = prop_oneof![
        3 => any::<bool>().prop_map(|submitted| Ending::Token { submitted }),
        1 => any::<bool>().prop_map(|submitted| Ending::Fd { submitted }),
        2 => any::<bool>().prop_map(|submitted| Ending::All { submitted }),
        1 => any::<bool>().prop_map(|submitted| Ending::Drop { submitted }),
    ];
    let first = prop_oneof![
        3 => transfers(),
        3 => messages(),
        1 => Just(Op::Timeout { micros: 0 }),
        1 => Just(Op::Nop),
    ];
    let unit = (items(first.boxed()), vec(items(prop_oneof![Just(Op::Nop), options()].boxed()), 0..3));
    let unit = unit.prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect());
    (any::<bool>(), vec(unit, 1..4), how).prop_map(|(tasks, units, how)| Step::End { tasks, units, how }).boxed()
}

fn others() -> Any<Step> {
    let many = prop_oneof![
        (0..2u8).prop_map(Many::Poll),
        (0..2u8, any::<bool>()).prop_map(|(i, side)| Many::Recv(i, side)),
        (0..2u8).prop_map(Many::Read),
        Just(Many::Accept),
        Just(Many::Timeout),
    ];
    let quiet = prop_oneof![
        (0..2u8, any::<bool>()).prop_map(|(i, side)| H::Stream(i, side)),
        (0..2u8).prop_map(H::PipeR),
        Just(H::Quiet),
        any::<bool>().prop_map(H::Tcp),
    ];
    let links = (link(), link(), link()).prop_map(|(a, b, c)| [a, b, c]);
    prop_oneof![
        2 => (many, 1..4u8).prop_map(|(what, count)| Step::Multi { what, count }),
        2 => (shape(), quiet, 1..3u8, option::of(link()))
            .prop_map(|(shape, h, waiting, tail)| Step::CancelFd { shape, h, waiting, tail }),
        3 => (shape(), name(), open_flags(), links, 0..40u16)
            .prop_map(|(shape, name, flags, links, len)| Step::OpenInto { shape, name, flags, links, len }),
    ]
    .boxed()
}

fn thread() -> Any<Thread> {
    let steps = Union::new_weighted(vec![(12, runs()), (2, meetings()), (2, endings()), (2, others())]);
    (any::<bool>(), vec(steps, 1..6)).prop_map(|(tasks, steps)| Thread { tasks, steps }).boxed()
}

pub fn programs() -> Any<Program> {
    let threads = prop_oneof![9 => vec(thread(), 1..=1), 1 => vec(thread(), 2..=3)];
    threads.prop_map(|threads| Program { threads }.legal()).boxed()
}
