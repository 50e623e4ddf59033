//! What a panic in a task does: `cargo run --example sick_task`.
//!
//! It ends its task, and nothing else; whoever joins is told. In a program that is built with `panic = "abort"` it ends
//! the process, as any panic does there:
//!
//! ```sh
//! cargo run --profile abort --example sick_task
//! ```

use aio::coro;
use std::{io, time::Duration};

fn main() -> io::Result<()> {
    coro::run(|| {
        let healthy = coro::spawn(|| coro::sleep(Duration::from_millis(20)));
        let sick = coro::spawn(|| {
            coro::sleep(Duration::from_millis(1))?;
            if true {
                panic!("this task is sick");
            }
            Ok::<(), aio::Error>(())
        });
        match sick.join() {
            Err(error) => println!("{error}; the others go on"),
            Ok(_) => println!("it was not that sick"),
        }
        healthy.join()??;
        println!("and end as they should");
        Ok(())
    })?
}
