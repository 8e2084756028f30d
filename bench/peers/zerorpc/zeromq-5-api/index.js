// zerorpc asks for zeromq 4, which does not build with current versions of Node: this is version 6 through its own
// module for the old interface.
module.exports = require("zeromq-6/v5-compat")
