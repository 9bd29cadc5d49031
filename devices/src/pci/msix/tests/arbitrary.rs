// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of accesses and events against a model of PCI 3.0, 6.8.2 that knows a vector as four numbers.

use proptest::prelude::*;

use super::*;

const COUNT: u16 = 3;

#[derive(Clone, Debug)]
enum Act {
    Write(u64, Vec<u8>),
    Word(u64, u64, u32),
    Configure(u16, bool),
    Signal(u16),
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    let word = (
        0..u64::from(COUNT),
        0u64..4,
        prop_oneof![
            4 => 0u32..4,
            4 => Just(0xfee0_0000),
            1 => any::<u32>(),
        ],
    );
    prop_oneof![
        1 => (0u64..80, prop::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(offset, data)| Act::Write(offset, data)),
        8 => word.prop_map(|(vector, field, value)| Act::Word(vector, 4 * field, value)),
        3 => (prop_oneof![4 => Just(ENABLE), 1 => any::<u16>()], any::<bool>())
            .prop_map(|(control, master)| Act::Configure(control & (ENABLE | FUNCTION_MASK), master)),
        4 => (0..COUNT + 1).prop_map(Act::Signal),
        1 => Just(Act::Clear),
    ]
}

/// One vector: address low and high, data, control; pending; the route that the slot has.
#[derive(Clone, Debug, Default)]
struct Model {
    words: [u32; 4],
    pending: bool,
    route: Option<(u64, u32)>,
}

impl Model {
    fn address(&self) -> u64 {
        u64::from(self.words[1]) << 32 | u64::from(self.words[0])
    }
    /// What it can send, if anything, at a time when the function sends.
    fn message(&self) -> Option<(u64, u32)> {
        let good = (0xfee0_0000..=0xfeef_ffff).contains(&self.address()) && self.address() & 3 == 0;
        (self.words[3] & 1 == 0 && good).then_some((self.address(), self.words[2]))
    }
}

proptest! {
    #[test]
    fn vectors_are_as_in_the_specification(acts in prop::collection::vec(act(), 0..60)) {
        let mut bench = Bench::new(COUNT);
        let mut model = vec![Model { words: [0, 0, 0, 1], ..Model::default() }; COUNT.into()];
        let (mut live, mut sent) = (false, vec![0; COUNT.into()]);
        for act in &acts {
            match act {
                Act::Write(offset, data) => {
                    let _ = bench.write(*offset, data);
                    if matches!(data.len(), 4 | 8) && offset % data.len() as u64 == 0 {
                        for (at, word) in (*offset / 4..).zip(data.chunks(4)) {
                            if let Some(vector) = model.get_mut(usize::try_from(at / 4).unwrap()) {
                                let word = u32::from_le_bytes(word.try_into().unwrap());
                                vector.words[usize::try_from(at % 4).unwrap()] = word;
                            }
                        }
                    }
                }
                Act::Word(vector, field, value) => {
                    let _ = bench.word(*vector, *field, *value);
                    let words = &mut model[usize::try_from(*vector).unwrap()].words;
                    words[usize::try_from(field / 4).unwrap()] = *value;
                }
                Act::Configure(control, master) => {
                    let _ = bench.configure(*control, *master);
                    live = control & (ENABLE | FUNCTION_MASK) == ENABLE && *master;
                }
                Act::Signal(vector) => {
                    bench.signal(*vector);
                    if let Some(vector) = model.get_mut(usize::from(*vector)) {
                        vector.pending = true;
                    }
                }
                Act::Clear => {
                    bench.msix.clear_pending();
                    model.iter_mut().for_each(|vector| vector.pending = false);
                }
            }
            let mut routes = Vec::new();
            for (number, vector) in (0u16..).zip(&mut model) {
                let Some((address, data)) = vector.message().filter(|_| live) else { continue };
                if vector.route != Some((address, data)) {
                    vector.route = Some((address, data));
                    routes.push((number, Message { address, data }));
                }
                sent[usize::from(number)] += u64::from(std::mem::take(&mut vector.pending));
            }
            prop_assert_eq!(bench.slot.take_routes(), routes, "{:?}", act);
            prop_assert_eq!(bench.sent(), std::mem::replace(&mut sent, vec![0; COUNT.into()]), "{:?}", act);
            let pending = model.iter().rev().fold(0, |bits, vector| bits << 1 | u8::from(vector.pending));
            prop_assert_eq!(bench.pending(0, 4), [pending, 0, 0, 0]);
        }
        for (at, vector) in (0..).step_by(16).zip(&model) {
            let [low, high, data, control] = vector.words;
            let bytes: Vec<_> = [low, high, data, control & 1].into_iter().flat_map(u32::to_le_bytes).collect();
            prop_assert_eq!([bench.read(at, 8), bench.read(at + 8, 8)].concat(), bytes);
        }
    }
}
