//! What C functions, types and other callables are called.

use std::ffi::CStr;

use super::Torn;
use super::frame::REFERENCE_FLAGS;
use super::objects::{Objects, Offset};
use super::strings;
use crate::layout::Layout;
use crate::layout::bytecode::Called;
use crate::mem::{Address, Memory, PAGE};

/// What an object is, as far as calling it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callable {
    /// Its call runs C code, which has the name that was asked for.
    Native {
        /// Whether it is there for as long as the interpreter, or nearly: what lies at its address now
        /// did so before.
        is_lasting: bool,
        /// Whether it is one of those that calls hardly ever return: a function of a module, or a
        /// method that fits what it is called on.
        is_no_result: bool,
    },
    /// Its call runs Python code.
    Python,
    /// It cannot be called, or nothing certain is known of it.
    Unknown,
}

/// `Py_TPFLAGS_HEAPTYPE` and `Py_TPFLAGS_TYPE_SUBCLASS` (`object.h`, all versions).
const HEAP_TYPE: u64 = 1 << 9;
const TYPE_SUBCLASS: u64 = 1 << 31;
/// Longest name that is believed, in bytes.
const MOST_NAME: usize = 120;
/// Deepest line of base classes.
const MOST_BASES: usize = 64;

/// Tells what callables are; generic over what is read.
pub struct Callables<'a, M> {
    objects: Objects<'a, M>,
}

impl<'a, M: Memory> Callables<'a, M> {
    /// Of a memory laid out like this.
    pub fn new(memory: &'a M, layout: &'a Layout) -> Self {
        Self { objects: Objects { memory, layout } }
    }

    /// What a call of this object runs, and into `name`, if that is C code, what that is called.
    ///
    /// `receiver` is the object that a method is called on, if it is given apart from the other
    /// arguments; a method that is not one of the object's is not what is called. Nor is a
    /// function that does not take so many `arguments`, if their number is known.
    pub fn describe(
        &self,
        object: Address,
        receiver: Option<Address>,
        arguments: Option<u32>,
        name: &mut String,
    ) -> Result<Callable, Torn> {
        name.clear();
        let Objects { memory, layout } = self.objects;
        let class = self.objects.type_of(object)?;
        let flags = self.flags(class)?;
        let is_type = flags & TYPE_SUBCLASS != 0;
        if flags & HEAP_TYPE != 0 {
            self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
            if is_type {
                return self.describe_type(object, name);
            }
            // Types that C code makes have their module in their name. Others may be Python's.
            let is_of_c = name.contains('.') && self.is_callable(class)?;
            return Ok(if is_of_c { PASSING } else { Callable::Unknown });
        }
        if is_type {
            return self.describe_type(object, name);
        }
        self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
        let body = layout.natives.object_body;
        match &**name {
            "function" => return Ok(Callable::Python),
            "method" => {
                let function = memory.word(object.offset(body)?)?;
                let kind = self.objects.type_of(function)?;
                name.clear();
                self.push_c_string(memory.word(kind.offset(layout.type_name)?)?, name)?;
                let is_python = &**name == "function" && self.flags(kind)? & HEAP_TYPE == 0;
                return Ok(if is_python { Callable::Python } else { Callable::Unknown });
            }
            "builtin_function_or_method" | "builtin_method" => {
                return self.describe_function(object, arguments, name);
            }
            "method_descriptor" | "classmethod_descriptor" | "wrapper_descriptor" => {
                let is_of_object = &**name != "classmethod_descriptor";
                let owner = self.describe_descriptor(object, name)?;
                return Ok(match receiver.filter(|_| is_of_object) {
                    Some(receiver) if !self.is_instance(receiver, owner)? => Callable::Unknown,
                    receiver => {
                        Callable::Native { is_lasting: true, is_no_result: receiver.is_some() }
                    }
                });
            }
            "method-wrapper" => {
                self.describe_descriptor(memory.word(object.offset(body)?)?, name)?;
                return Ok(PASSING);
            }
            _ => {}
        }
        Ok(match self.is_callable(class)? {
            true => PASSING,
            false => Callable::Unknown,
        })
    }

    /// The name of an object's type, unless that may be one of Python code's.
    pub fn type_name(&self, object: Address, name: &mut String) -> Result<Option<Address>, Torn> {
        let Objects { memory, layout } = self.objects;
        let class = self.objects.type_of(object)?;
        let start = name.len();
        self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
        let is_of_c = self.flags(class)? & HEAP_TYPE == 0 || name[start..].contains('.');
        Ok(is_of_c.then_some(class))
    }

    /// Whether an object is of a type whose objects are called with the object they are looked up on.
    pub fn is_method(&self, object: Address) -> Result<bool, Torn> {
        /// `Py_TPFLAGS_METHOD_DESCRIPTOR` (`object.h`, 3.8 on).
        const METHOD_DESCRIPTOR: u64 = 1 << 17;
        Ok(self.flags(self.objects.type_of(object)?)? & METHOD_DESCRIPTOR != 0)
    }

    /// Whether a call that is specialised like this may call an object.
    pub fn fits(&self, object: Address, called: Called) -> Result<bool, Torn> {
        let Objects { memory, layout } = self.objects;
        let class = self.objects.type_of(object)?;
        Ok(match called {
            Called::Class => self.flags(class)? & TYPE_SUBCLASS != 0,
            Called::Method => self.is_named(class, c"method_descriptor")?,
            Called::Function(flags) => {
                self.is_named(class, c"builtin_function_or_method")? && {
                    let definition = memory.word(object.offset(layout.natives.object_body)?)?;
                    self.function_flags(definition)? & Called::FLAGS == flags
                }
            }
        })
    }

    /// Whether somebody has the object that this word of a value stack refers to, beside the stack:
    /// a call has not just made it. 3.14 on; free-threaded builds do not tell in one word.
    pub fn is_held(&self, word: u64) -> Result<bool, Torn> {
        /// `Py_TAG_REFCNT` (`internal/pycore_stackref.h`): others keep it, or it is immortal.
        const KEPT_BY_OTHERS: u64 = 1;
        /// Of the head of objects that begins with their `ob_refcnt`, of 32 bits (`object.h`, 3.14 on).
        const COUNTED_HEAD: usize = 16;
        let Objects { memory, layout } = self.objects;
        let is_counted = layout.natives.object_body == COUNTED_HEAD;
        Ok(word & KEPT_BY_OTHERS != 0 || is_counted && memory.word32(word & !REFERENCE_FLAGS)? > 1)
    }

    /// Whether a type has this name, without a copy of it.
    fn is_named(&self, class: Address, name: &CStr) -> Result<bool, Torn> {
        let Objects { memory, layout } = self.objects;
        let name = name.to_bytes_with_nul();
        let mut bytes = [0; MOST_NAME];
        let bytes = bytes.get_mut(..name.len()).ok_or(Torn)?;
        memory.read(memory.word(class.offset(layout.type_name)?)?, bytes)?;
        Ok(bytes == name)
    }

    fn flags(&self, class: Address) -> Result<u64, Torn> {
        let Objects { memory, layout } = self.objects;
        Ok(memory.word(class.offset(layout.objects.type_flags)?)?)
    }

    fn is_callable(&self, class: Address) -> Result<bool, Torn> {
        let Objects { memory, layout } = self.objects;
        Ok(memory.word(class.offset(layout.natives.type_call)?)? != 0)
    }

    fn is_instance(&self, object: Address, class: Address) -> Result<bool, Torn> {
        let Objects { memory, layout } = self.objects;
        let mut next = self.objects.type_of(object)?;
        for _ in 0..MOST_BASES {
            if next == class || next == 0 {
                break;
            }
            next = memory.word(next.offset(layout.natives.type_base)?)?;
        }
        // Of several bases only the one that says what instances look like is followed.
        Ok(next == class)
    }

    fn describe_type(&self, class: Address, name: &mut String) -> Result<Callable, Torn> {
        let Objects { memory, layout } = self.objects;
        name.clear();
        self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
        let is_lasting = self.flags(class)? & HEAP_TYPE == 0;
        Ok(Callable::Native { is_lasting, is_no_result: false })
    }

    /// Whether a function takes so many arguments, all by position.
    fn takes(&self, definition: Address, arguments: Option<u32>) -> Result<bool, Torn> {
        /// `METH_NOARGS` (`methodobject.h`).
        const NO_ARGUMENTS: u32 = 4;
        let flags = self.function_flags(definition)?;
        Ok(match arguments {
            Some(count) if flags & NO_ARGUMENTS != 0 => count == 0,
            Some(count) if flags & Called::ONE != 0 => count == 1,
            _ => true,
        })
    }

    fn function_flags(&self, definition: Address) -> Result<u32, Torn> {
        /// `ml_flags` of `PyMethodDef` (`methodobject.h`).
        const FLAGS: usize = 16;
        Ok(self.objects.memory.word32(definition.offset(FLAGS)?)?)
    }

    /// `PyCFunctionObject` (`methodobject.h`, `cpython/methodobject.h`): definition, object, module.
    fn describe_function(
        &self,
        object: Address,
        arguments: Option<u32>,
        name: &mut String,
    ) -> Result<Callable, Torn> {
        let Objects { memory, layout } = self.objects;
        let body = layout.natives.object_body;
        let [definition, of, module] =
            [0, 8, 16].map(|offset| object.offset(body + offset).map(|at| memory.word(at)));
        let (definition, of, module) = (definition??, of??, module??);
        name.clear();
        let mut is_of_module = false;
        if of != 0 {
            let class = self.objects.type_of(of)?;
            self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
            is_of_module = &**name == "module";
            if self.flags(class)? & TYPE_SUBCLASS != 0 {
                name.clear();
                self.push_c_string(memory.word(of.offset(layout.type_name)?)?, name)?;
            }
        }
        if module != 0 {
            let module = strings::text(memory, layout, module)?;
            name.clear();
            if &*module != "builtins" {
                name.push_str(&module);
            }
        } else if is_of_module {
            name.clear();
        }
        if !name.is_empty() {
            name.push('.');
        }
        self.push_c_string(memory.word(definition)?, name)?;
        Ok(match self.takes(definition, arguments)? {
            // One that has no object may be what is left of another: memory is cleared for a new one.
            true => {
                Callable::Native { is_lasting: is_of_module, is_no_result: is_of_module || of == 0 }
            }
            false => Callable::Unknown,
        })
    }

    /// `PyDescr_COMMON` (`descrobject.h`, `cpython/descrobject.h`): the type, and the name. Returns the type.
    fn describe_descriptor(&self, object: Address, name: &mut String) -> Result<Address, Torn> {
        let Objects { memory, layout } = self.objects;
        let body = layout.natives.object_body;
        let class = memory.word(object.offset(body)?)?;
        let its_name = memory.word(object.offset(body + 8)?)?;
        name.clear();
        self.push_c_string(memory.word(class.offset(layout.type_name)?)?, name)?;
        name.push('.');
        name.push_str(&strings::text(memory, layout, its_name)?);
        Ok(class)
    }

    /// Appends what ends in a NUL, which must be a name.
    fn push_c_string(&self, at: Address, into: &mut String) -> Result<(), Torn> {
        let mut bytes = [0; MOST_NAME];
        let mut length = 0;
        while length < MOST_NAME {
            let from = at.offset(length)?;
            // The next page may not be there.
            let here = ((PAGE - from % PAGE) as usize).min(MOST_NAME - length).min(32);
            let piece = &mut bytes[length..length + here];
            self.objects.memory.read(from, piece)?;
            let end = piece.iter().position(|&byte| byte == 0);
            length += end.unwrap_or(here);
            if end.is_some() {
                let text = std::str::from_utf8(&bytes[..length]).map_err(|_| Torn)?;
                let is_name = !text.is_empty() && !text.contains(char::is_control);
                into.push_str(Some(text).filter(|_| is_name).ok_or(Torn)?);
                return Ok(());
            }
        }
        Err(Torn)
    }
}

const PASSING: Callable = Callable::Native { is_lasting: false, is_no_result: false };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables;
    use crate::reader::testing::World;

    /// What the method `now` is, of an object of this class.
    fn method_of(class: Option<&str>) -> (Callable, String) {
        let mut world = World::new(tables::V3_12);
        let body = world.layout.natives.object_body;
        let object_type = world.layout.object_type;
        let function_type = world.class("builtin_function_or_method", 0);
        let owner = class.map_or(0, |class| {
            let class = world.class(class, 0);
            world.place(&[(object_type, class)])
        });
        let name = u64::from_ne_bytes(*b"now\0\0\0\0\0");
        let text = world.place(&[(0, name)]);
        let definition = world.place(&[(0, text)]);
        let words = [(object_type, function_type), (body, definition), (body + 8, owner)];
        let function = world.place(&words);
        let image = world.image(0);
        let mut name = String::new();
        let found = Callables::new(&image, &world.layout).describe(function, None, None, &mut name);
        (found.expect("all of it is there"), name)
    }

    #[test]
    fn only_functions_of_modules_last() {
        let native = |is_lasting, is_no_result| Callable::Native { is_lasting, is_no_result };
        assert_eq!(method_of(Some("module")), (native(true, true), "now".to_owned()));
        assert_eq!(method_of(Some("clock")), (native(false, false), "clock.now".to_owned()));
        assert_eq!(method_of(None), (native(false, true), "now".to_owned()));
    }
}
