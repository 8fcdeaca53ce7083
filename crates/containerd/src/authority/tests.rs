use super::*;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SOCKET: &[u8] = b"/var/run/docker/libcontainerd/docker-containerd.sock";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameHeader { length: payload.len(), kind, flags, stream }.put(&mut out);
    out.extend_from_slice(payload);
    out.to_vec()
}

fn huffman(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    httlib_huffman::encode(text, &mut coded).unwrap();
    coded
}

/// The block grpc-go sends: `:method POST`, `:scheme http`, `:path`, then `:authority` by incremental indexing.
fn block(authority: &[u8], coded: bool) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x44, 5];
    block.extend_from_slice(b"/t.A/");
    block.push(0x41);
    let value = if coded { huffman(authority) } else { authority.to_vec() };
    block.push(if coded { 0x80 } else { 0 } | value.len() as u8);
    block.extend_from_slice(&value);
    // A repeat by index of what was just entered, and a literal never indexed.
    block.extend_from_slice(&[0xbe, 0x10, 1, b'x', 1, b'y']);
    block
}

fn filler(length: usize) -> Vec<u8> {
    vec![b'a'; length]
}

/// Feeds the bytes in pieces of each size and wants the same result for all.
fn run(bytes: &[u8]) -> Vec<u8> {
    let mut results = [1, 2, 3, 7, 64, 100_000].into_iter().map(|size| {
        let mut out = BytesMut::new();
        rewrite(&bytes.chunks(size).collect::<Vec<_>>(), &mut out);
        out.to_vec()
    });
    let first = results.next().unwrap();
    assert!(results.all(|r| r == first), "the result depends on how the bytes arrive");
    first
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend_from_slice(&frame(4, 0, 0, &[]));
    frames.iter().for_each(|f| bytes.extend_from_slice(f));
    bytes.extend_from_slice(&frame(0, 1, 1, b"\0\0\0\0\0"));
    bytes
}

#[test]
fn a_socket_path_becomes_an_authority_of_the_same_length() {
    for coded in [false, true] {
        let before = connection(&[frame(HEADERS, END_HEADERS, 1, &block(SOCKET, coded))]);
        let after = connection(&[frame(HEADERS, END_HEADERS, 1, &block(&filler(SOCKET.len()), coded))]);
        assert_eq!(run(&before), after, "coded: {coded}");
    }
}

#[test]
fn valid_authorities_and_repeats_pass_untouched() {
    for authority in [&b"unix"[..], b"localhost:2375", b"[::1]:80", b"127.0.0.1"] {
        for coded in [false, true] {
            let bytes = connection(&[frame(HEADERS, END_HEADERS, 1, &block(authority, coded))]);
            assert_eq!(run(&bytes), bytes);
        }
    }
    let repeat = connection(&[frame(HEADERS, END_HEADERS, 3, &[0x83, 0x86, 0xc0, 0xbf])]);
    assert_eq!(run(&repeat), repeat);
}

#[test]
fn padding_goes_and_priority_stays() {
    let inner = block(SOCKET, true);
    let mut payload = vec![3, 0x80, 0, 0, 5, 16];
    payload.extend_from_slice(&inner);
    payload.extend_from_slice(&[0, 0, 0]);
    let before = connection(&[frame(HEADERS, END_HEADERS | PADDED | PRIORITY | 1, 1, &payload)]);
    let mut payload = vec![0x80, 0, 0, 5, 16];
    payload.extend_from_slice(&block(&filler(SOCKET.len()), true));
    assert_eq!(run(&before), connection(&[frame(HEADERS, END_HEADERS | PRIORITY | 1, 1, &payload)]));
}

#[test]
fn a_block_may_be_cut_anywhere() {
    let inner = block(SOCKET, true);
    let expected = connection(&[frame(HEADERS, END_HEADERS, 1, &block(&filler(SOCKET.len()), true))]);
    for cut in 0..inner.len() {
        let (a, b) = inner.split_at(cut);
        let (b, c) = b.split_at(b.len() / 2);
        let before = connection(&[
            frame(HEADERS, 0, 1, a),
            frame(CONTINUATION, 0, 1, b),
            frame(CONTINUATION, END_HEADERS, 1, c),
        ]);
        assert_eq!(run(&before), expected, "cut at {cut}");
    }
}

#[test]
fn long_values_and_names_spelled_out() {
    let path = vec![b'/'; 300];
    let build = |value: &[u8]| {
        let mut block = vec![0x00, 10];
        block.extend_from_slice(b":authority");
        put(&mut block, value);
        block
    };
    fn put(block: &mut Vec<u8>, value: &[u8]) {
        block.extend_from_slice(&[0x7f, 0xad, 0x01]); // 300 = 127 + 45 + 128
        block.extend_from_slice(value);
    }
    let before = connection(&[frame(HEADERS, END_HEADERS, 1, &build(&path))]);
    assert_eq!(run(&before), connection(&[frame(HEADERS, END_HEADERS, 1, &build(&filler(300)))]));
}

#[test]
fn what_is_malformed_passes_through() {
    let broken: Vec<Vec<u8>> = vec![
        frame(HEADERS, END_HEADERS, 1, &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        frame(HEADERS, END_HEADERS, 1, &[0x41, 50, b'/']),
        frame(HEADERS, END_HEADERS, 1, &[0x41, 0x81, 0x00]),
        frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 1]),
        frame(HEADERS, END_HEADERS | PRIORITY, 1, &[1]),
        [frame(HEADERS, 0, 1, &[0x83]), frame(0, 0, 1, b"data")].concat(),
        [frame(HEADERS, 0, 1, &[0x83]), frame(CONTINUATION, END_HEADERS, 3, &[0x86])].concat(),
        vec![0xff; 50],
    ];
    for frames in broken {
        let bytes = connection(&[frames]);
        let out = run(&bytes);
        assert!(bytes.starts_with(&out), "bytes were changed or invented");
    }
    let garbage: Vec<u8> = (0..=255).cycle().take(5000).collect();
    assert!(garbage.starts_with(&run(&garbage)));
}
