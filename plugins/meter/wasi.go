package meter

// wasiModule is the only module that a plugin may import from.
const wasiModule = "wasi_snapshot_preview1"

// WASIFunction is a function of wasi_snapshot_preview1 with its type: i is i32, l is i64.
type WASIFunction struct {
	Name, Params, Results string
}

// wasiFunctions is every function of wasi_snapshot_preview1. The host answers all of them itself.
var wasiFunctions = [...]WASIFunction{
	{"args_get", "ii", "i"},
	{"args_sizes_get", "ii", "i"},
	{"clock_res_get", "ii", "i"},
	{"clock_time_get", "ili", "i"},
	{"environ_get", "ii", "i"},
	{"environ_sizes_get", "ii", "i"},
	{"fd_advise", "illi", "i"},
	{"fd_allocate", "ill", "i"},
	{"fd_close", "i", "i"},
	{"fd_datasync", "i", "i"},
	{"fd_fdstat_get", "ii", "i"},
	{"fd_fdstat_set_flags", "ii", "i"},
	{"fd_fdstat_set_rights", "ill", "i"},
	{"fd_filestat_get", "ii", "i"},
	{"fd_filestat_set_size", "il", "i"},
	{"fd_filestat_set_times", "illi", "i"},
	{"fd_pread", "iiili", "i"},
	{"fd_prestat_dir_name", "iii", "i"},
	{"fd_prestat_get", "ii", "i"},
	{"fd_pwrite", "iiili", "i"},
	{"fd_read", "iiii", "i"},
	{"fd_readdir", "iiili", "i"},
	{"fd_renumber", "ii", "i"},
	{"fd_seek", "ilii", "i"},
	{"fd_sync", "i", "i"},
	{"fd_tell", "ii", "i"},
	{"fd_write", "iiii", "i"},
	{"path_create_directory", "iii", "i"},
	{"path_filestat_get", "iiiii", "i"},
	{"path_filestat_set_times", "iiiilli", "i"},
	{"path_link", "iiiiiii", "i"},
	{"path_open", "iiiiillii", "i"},
	{"path_readlink", "iiiiii", "i"},
	{"path_remove_directory", "iii", "i"},
	{"path_rename", "iiiiii", "i"},
	{"path_symlink", "iiiii", "i"},
	{"path_unlink_file", "iii", "i"},
	{"poll_oneoff", "iiii", "i"},
	{"proc_exit", "i", ""},
	{"proc_raise", "i", "i"},
	{"random_get", "ii", "i"},
	{"sched_yield", "", "i"},
	{"sock_accept", "iii", "i"},
	{"sock_recv", "iiiiii", "i"},
	{"sock_send", "iiiii", "i"},
	{"sock_shutdown", "ii", "i"},
}

// WASIFunctions returns every function that a plugin may import.
func WASIFunctions() []WASIFunction { return wasiFunctions[:] }

func wasiFunction(name string) (functionType, bool) {
	for _, f := range wasiFunctions {
		if f.Name == name {
			return functionType{params: wasiTypes(f.Params), results: wasiTypes(f.Results)}, true
		}
	}
	return functionType{}, false
}

func wasiTypes(letters string) []byte {
	var types []byte
	for _, l := range letters {
		if l == 'l' {
			types = append(types, typeI64)
		} else {
			types = append(types, typeI32)
		}
	}
	return types
}
