package certwright

import "testing"

func TestS11_NetworkFileSystems(t *testing.T) {
	tests := []struct {
		name  string
		magic uint32
		want  bool
	}{
		{"nfs", 0x6969, true},
		{"cifs", 0xFF534D42, true},
		{"smb2", 0xFE534D42, true},
		{"fuse", 0x65735546, true},
		{"9p", 0x01021997, true},
		{"ext4", 0xEF53, false},
		{"xfs", 0x58465342, false},
		{"btrfs", 0x9123683E, false},
		{"tmpfs", 0x01021994, false},
		{"overlay", 0x794C7630, false},
		{"zfs", 0x2FC12FC1, false},
		{"ceph", 0x00C36400, false},
	}
	for _, tt := range tests {
		if got := isNetworkMagic(tt.magic); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if networkFS("/proc/self") || networkFS("/none/such") {
		t.Error("what is no network file system passes for one")
	}
}
