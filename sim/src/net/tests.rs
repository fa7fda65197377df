use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Two nodes and a client, all there.
fn net() -> Net {
    let net = Net::new(2, 1, Rng::new(1, 1));
    net.rise(0);
    net.rise(1);
    net
}

fn pass(net: &Net, ms: u64) {
    let start = net.now();
    for step in (5..=ms).step_by(5) {
        net.step(start + Duration::from_millis(step));
    }
}

/// What has come; `None` while nothing has.
fn heard(reader: &mut PipeReader) -> Option<std::io::Result<Vec<u8>>> {
    let mut buffer = [0; 16];
    let read = reader.read(&mut buffer).now_or_never()?;
    Some(read.map(|count| buffer[..count].to_vec()))
}

fn say(writer: &mut PipeWriter, bytes: &[u8]) {
    writer.write_all(bytes).now_or_never().expect("there is room").expect("it stands");
}

#[test]
fn what_a_cut_holds_up_arrives_when_it_is_mended_and_not_twice() {
    let net = net();
    pass(&net, 200);
    let mut streams = net.listen(1, Port::Data);
    let (_reader, mut writer) = net.open(0, 1, Port::Data).expect("there is a way");
    say(&mut writer, b"a");
    pass(&net, 50);
    let mut incoming = streams.try_recv().expect("it is there");
    assert_eq!(heard(&mut incoming.reader).expect("has come").expect("stands"), b"a");
    net.cut(0, 1, true);
    say(&mut writer, b"bc");
    pass(&net, 500);
    assert!(heard(&mut incoming.reader).is_none(), "nothing passes, and nobody is told");
    net.cut(0, 1, false);
    drop(writer);
    pass(&net, 50);
    assert_eq!(heard(&mut incoming.reader).expect("has come").expect("stands"), b"bc");
    assert_eq!(heard(&mut incoming.reader).expect("has ended").expect("in order"), b"");
}

#[test]
fn nodes_that_do_not_hear_each_other_give_their_link_up_and_dial_again() {
    let net = net();
    pass(&net, 200);
    let (mut reader, _writer) = net.open(0, 1, Port::Data).expect("there is a way");
    net.cut(1, 0, true);
    pass(&net, 650);
    assert!(heard(&mut reader).is_none());
    pass(&net, 100);
    assert!(heard(&mut reader).expect("is told").is_err());
    assert!(net.open(0, 1, Port::Data).is_none());
    net.cut(1, 0, false);
    pass(&net, 200);
    assert!(net.open(0, 1, Port::Data).is_some());
}

#[test]
fn a_process_that_is_killed_is_noticed_at_once_and_a_machine_that_is_gone_later() {
    for (silent, noticed_after) in [(false, 50), (true, 740)] {
        let net = net();
        pass(&net, 200);
        let (mut reader, _writer) = net.open(0, 1, Port::Data).expect("there is a way");
        net.fall(1, silent);
        pass(&net, noticed_after - 50);
        assert!(!silent || heard(&mut reader).is_none());
        pass(&net, 50);
        assert!(heard(&mut reader).expect("is told").is_err());
    }
}
