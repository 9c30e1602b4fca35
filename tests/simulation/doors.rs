//! The simulated doors themselves: who refuses, who is silent, what arrives late, and that a run follows from its seed.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use volt_node::world::simulated::{Faults, SimulatedClock, SimulatedNetwork};
use volt_node::world::{Clock, Network};

use crate::determinism::on_seeded_thread;

/// What a client saw of a server that is killed, started, loses power, comes back, is cut off for a while, and does not hear the client for a while.
fn story(seed: u64) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let faults = Arc::new(Faults::default());
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(60))
        .max_message_latency(Duration::from_millis(4))
        .rng_seed(seed)
        .build();
    sim.host("server", {
        let faults = Arc::clone(&faults);
        move || echo(SimulatedNetwork::new("server", Arc::clone(&faults)))
    });
    sim.client(
        "client",
        client(SimulatedNetwork::new("client", Arc::clone(&faults)), Arc::clone(&seen)),
    );
    loop {
        let now = sim.elapsed().as_millis();
        match now {
            1000 => {
                faults.killed("server");
                sim.crash("server");
            }
            2000 => {
                faults.is_back("server");
                sim.bounce("server");
            }
            3000 => {
                faults.lost("server");
                sim.partition("server", "client");
                sim.crash("server");
                sim.repair("server", "client");
            }
            5000 => {
                faults.is_back("server");
                sim.bounce("server");
            }
            7000 => sim.hold("server", "client"),
            8000 => sim.release("server", "client"),
            8500 => faults.deafen("server", "client"),
            9500 => faults.hear("server", "client"),
            _ => {}
        }
        if sim.step().expect("no error") {
            break;
        }
    }
    seen.lock().expect("no panic").clone()
}

async fn echo(network: SimulatedNetwork) -> turmoil::Result {
    let listener = network.listen("server:700").await?;
    assert_eq!(listener.local_address(), "server:700");
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
        });
    }
}

/// One exchange every 100 ms, each on a connection of its own; and what comes of it.
async fn client(network: SimulatedNetwork, seen: Arc<Mutex<Vec<String>>>) -> turmoil::Result {
    while turmoil::sim_elapsed().unwrap_or_default() < Duration::from_secs(10) {
        let began = turmoil::sim_elapsed().unwrap_or_default();
        let exchange = async {
            let mut stream = network.connect("server:700").await?;
            let mut byte = [7];
            stream.write_all(&byte).await?;
            stream.read_exact(&mut byte).await?;
            std::io::Result::Ok(())
        };
        let came = match timeout(Duration::from_millis(500), exchange).await {
            Ok(Ok(())) => "answered".to_owned(),
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Err(_) => "silent".to_owned(),
        };
        seen.lock()
            .expect("no panic")
            .push(format!("{} {came}", began.as_millis()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[test]
fn killed_refuses_lost_is_silent_cut_off_is_late() {
    let seen = on_seeded_thread(1, || story(1)).expect("no panic");
    let between = |from: u64, to: u64| {
        let moment = |line: &str| {
            line.split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or_default()
        };
        let mut kinds: Vec<String> = seen
            .iter()
            .filter(|line| (from..to).contains(&moment(line)))
            .map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned())
            .collect();
        kinds.dedup();
        kinds
    };
    assert_eq!(between(20, 950), ["answered"]);
    assert_eq!(between(1010, 1950), [format!("{:?}", ErrorKind::ConnectionRefused)]);
    assert_eq!(between(2200, 2950), ["answered"]);
    assert_eq!(between(3010, 4400), ["silent"]);
    assert_eq!(between(5200, 6950), ["answered"]);
    assert_eq!(between(7010, 7400), ["silent"]);
    assert_eq!(between(8200, 8400), ["answered"]);
    assert_eq!(
        between(8510, 8900),
        ["silent"],
        "the client hears the server, and is not heard"
    );
    assert_eq!(between(9550, 10_000), ["answered"]);
}

/// Bytes that a client sends on one connection, one each 100 ms, to a server that stops hearing it and then loses its connections.
async fn one_line(network: SimulatedNetwork, seen: Arc<Mutex<Vec<String>>>) -> turmoil::Result {
    let mut stream = network.connect("server:700").await?;
    loop {
        let exchange = async {
            let mut byte = [7];
            stream.write_all(&byte).await?;
            stream.read_exact(&mut byte).await
        };
        let came = timeout(Duration::from_secs(3), exchange).await?;
        let now = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let kind = came.map_or_else(|error| format!("{:?}", error.kind()), |_| "answered".to_owned());
        seen.lock().expect("no panic").push(format!("{now} {kind}"));
        if kind != "answered" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn what_was_not_heard_arrives_late_and_a_connection_breaks_at_both_ends() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let faults = Arc::new(Faults::default());
    let mut sim = turmoil::Builder::new()
        .max_message_latency(Duration::from_millis(4))
        .rng_seed(1)
        .build();
    sim.host("server", {
        let faults = Arc::clone(&faults);
        move || echo(SimulatedNetwork::new("server", Arc::clone(&faults)))
    });
    let network = SimulatedNetwork::new("client", Arc::clone(&faults));
    sim.client("client", one_line(network, Arc::clone(&seen)));
    loop {
        match sim.elapsed().as_millis() {
            1000 => faults.deafen("server", "client"),
            2000 => faults.hear("server", "client"),
            3000 => faults.break_connections("server"),
            _ => {}
        }
        if sim.step().expect("no error") {
            break;
        }
    }
    let seen = seen.lock().expect("no panic").clone();
    let moment = |line: &String| line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    let is_between = |line: &&String, from, to| moment(line).is_some_and(|moment| moment > from && moment < to);
    let heard = |from, to| seen.iter().filter(|line| is_between(line, from, to)).count();
    assert!(heard(0, 1000) > 3 && heard(2000, 3000) > 3, "{seen:?}");
    assert!(heard(1110, 2000) == 0, "{seen:?}");
    let last = seen.last().expect("a line");
    assert!(last.ends_with(&format!("{:?}", ErrorKind::ConnectionReset)), "{seen:?}");
    assert!(is_between(&last, 2999, 3200), "{seen:?}");
}

#[test]
fn who_stands_still_answers_late_and_keeps_its_connections() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let faults = Arc::new(Faults::default());
    let mut sim = turmoil::Builder::new()
        .max_message_latency(Duration::from_millis(4))
        .rng_seed(1)
        .build();
    sim.host("server", {
        let faults = Arc::clone(&faults);
        move || echo(SimulatedNetwork::new("server", Arc::clone(&faults)))
    });
    let network = SimulatedNetwork::new("client", Arc::clone(&faults));
    sim.client("client", one_line(network, Arc::clone(&seen)));
    loop {
        match sim.elapsed().as_millis() {
            1000 => faults.stand_still("server"),
            2000 => faults.go_on("server"),
            3000 => faults.break_connections("server"),
            _ => {}
        }
        if sim.step().expect("no error") {
            break;
        }
    }
    let seen = seen.lock().expect("no panic").clone();
    let moment = |line: &String| line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    let answered = seen.iter().filter(|line| line.ends_with("answered"));
    let moments: Vec<u64> = answered.filter_map(moment).collect();
    assert!(
        moments.iter().any(|at| *at < 1000) && moments.iter().any(|at| *at >= 2000),
        "{seen:?}"
    );
    assert!(!moments.iter().any(|at| (1005..2000).contains(at)), "{seen:?}");
}

#[test]
fn a_clock_that_stands_still_has_run_through() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let is_still = Arc::new(AtomicBool::new(false));
        let clock = SimulatedClock::new(Duration::ZERO, 0).standing_still_with(Arc::clone(&is_still));
        let pass = || tokio::time::sleep(Duration::from_millis(100));
        pass().await;
        is_still.store(true, Ordering::Relaxed);
        let (stood, stood_micros) = (clock.boot_time(), clock.unix_micros());
        pass().await;
        assert_eq!((clock.boot_time(), clock.unix_micros()), (stood, stood_micros));
        is_still.store(false, Ordering::Relaxed);
        assert!(clock.boot_time() >= stood + Duration::from_millis(100));
    });
}

#[test]
fn a_story_follows_from_its_seed() {
    let of = |seed| on_seeded_thread(seed, move || story(seed)).expect("no panic");
    assert_eq!(of(5), of(5));
    assert_ne!(of(5), of(6));
}
