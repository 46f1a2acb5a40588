// Package config is keytrail's typed configuration.
//
// Every setting has a default and can be given in the YAML file, in the
// environment and as a flag; each place wins over the ones before it. A secret,
// and a store URL, which may hold a password, can also be read from a file that
// another setting with the suffix _file (environment: _FILE, flag: -file) names.
// In the file and the environment an empty value counts as not given, so that a
// template may leave a blank.
//
// [Load] reads and judges everything before it answers, so that an operator sees
// every fault at once: unknown keys and variables, values that cannot be read,
// and settings that do not go together. [Settings] is the one table from which
// flags, documentation and the effective configuration are made.
package config
