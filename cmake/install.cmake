# What cmake --install lays down. pimoec and the compiler's library carry the runtime, the kernels and the
# recipes in themselves, so that there is no folder of data; what a compiled model needs is in the model.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(pimoe_headers INTERFACE)
target_include_directories(pimoe_headers INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(pimoe_headers PROPERTIES EXPORT_NAME headers)

# The compiler as a shared library: pm_compile and all behind it.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pimoe_compiler.c CONTENT "typedef int pm_all_is_in_archives;\n")
add_library(pimoe-compiler SHARED ${CMAKE_BINARY_DIR}/pimoe_compiler.c)
target_link_libraries(pimoe-compiler PRIVATE pm_driver)
target_link_options(pimoe-compiler PRIVATE -Wl,--undefined=pm_compile
  -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/compiler.map)
target_include_directories(pimoe-compiler INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(pimoe-compiler PROPERTIES EXPORT_NAME compiler VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/compiler.map)

# LLVM lies outside of the folders that the loader searches.
set_target_properties(pimoec pimoe pimoe-compiler PROPERTIES INSTALL_RPATH ${LLVM_22_PREFIX}/lib)
install(TARGETS pimoec pimoe pimoe-opt pimoe-compiler pimoe_headers EXPORT pimoe-targets
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/pm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY docs/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")

set(completions ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES tools/completion/pimoe.bash DESTINATION ${completions} RENAME pimoe)
foreach(tool pimoec pimoe-opt) # bash loads a file of the command's own name
  install(FILES tools/completion/pimoe.bash DESTINATION ${completions} RENAME ${tool})
endforeach()
install(FILES tools/completion/_pimoe tools/completion/_pimoec tools/completion/_pimoe-opt
  DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/pimoe)
configure_package_config_file(cmake/pimoe-config.cmake.in ${CMAKE_BINARY_DIR}/pimoe-config.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/pimoe-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(EXPORT pimoe-targets NAMESPACE pimoe:: DESTINATION ${package})
install(FILES ${CMAKE_BINARY_DIR}/pimoe-config.cmake ${CMAKE_BINARY_DIR}/pimoe-config-version.cmake
  cmake/pimoe_add_model.cmake DESTINATION ${package})

# The .pc files find the prefix from where they lie, so that the installation may be moved.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_BINDIR})
  message(FATAL_ERROR "CMAKE_INSTALL_*DIR: folders below the prefix are wanted, not absolute ones")
endif()
file(RELATIVE_PATH PM_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" PM_PC_TO_PREFIX ${PM_PC_TO_PREFIX})
foreach(name pimoe pimoe-compiler)
  configure_file(cmake/${name}.pc.in ${CMAKE_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
