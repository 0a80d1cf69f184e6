//! The modules that an interpreter has imported: `sys.modules`, by name.

use super::Torn;
use super::objects::Objects;
use crate::mem::{Address, Memory, field};

/// Where a module was among all of them the last time.
#[derive(Clone, Debug, Default)]
pub struct Place {
    index: usize,
    /// The extent of the table that it was not in.
    without: (Address, usize),
}

impl<M: Memory> Objects<'_, M> {
    /// The type of all `dict`s, which that of `sys.modules` is for sure.
    pub fn dict_type(&self, interpreter: Address) -> Result<Address, Torn> {
        self.type_of(self.modules(interpreter)?)
    }

    /// The namespace of a module, a `dict`; `None` as long as it is not imported.
    pub fn module(
        &self,
        interpreter: Address,
        dict_type: Address,
        name: &str,
        place: &mut Place,
    ) -> Result<Option<Address>, Torn> {
        let table = self.table(self.exact(self.modules(interpreter)?, dict_type)?)?;
        let now = table.extent();
        if place.without == now {
            return Ok(None);
        }
        let Some(module) = table.find(name, &mut place.index)? else {
            place.without = now;
            return Ok(None);
        };
        let module = self.memory.word(module.slot)?;
        Ok(Some(self.namespace(module, dict_type)?))
    }

    /// What a module has by name, a `dict`.
    pub fn namespace(&self, module: Address, dict_type: Address) -> Result<Address, Torn> {
        let namespace = self.memory.word(field(module, self.layout.objects.module_dict))?;
        self.exact(namespace, dict_type)
    }

    fn modules(&self, interpreter: Address) -> Result<Address, Torn> {
        Ok(self.memory.word(field(interpreter, self.layout.interpreter_modules))?)
    }
}
